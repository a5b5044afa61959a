// A callable passed by reference: two pointers, no allocation. Valid only during the call it is
// passed to.
#ifndef LANEWISE_RUNTIME_FUNCTION_REF_H_
#define LANEWISE_RUNTIME_FUNCTION_REF_H_

#include <memory>
#include <type_traits>
#include <utility>

namespace lanewise::runtime {

template <typename Signature>
class FunctionRef;

template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> &&
             std::is_invocable_r_v<R, F&, Args...>)
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor): made to bind lambdas at the call
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}

  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_FUNCTION_REF_H_

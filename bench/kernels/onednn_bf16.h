// oneDNN's bf16 product as a peer: from float32 activations to float32 results, as ours. What it
// converts and packs for that is in its time. Found at run time, like the other peers; version 3 on
// (pip's onednn packages), whose C interface is declared here as far as it is used.
#ifndef LANEWISE_BENCH_KERNELS_ONEDNN_BF16_H_
#define LANEWISE_BENCH_KERNELS_ONEDNN_BF16_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/matmul.h"

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>

namespace lanewise::bench {

// The functions and constants of dnnl.h and dnnl_types.h.
class OneDnn {
 public:
  using Handle = void*;
  enum Type : int { kBf16 = 2, kF32 = 3 };
  enum Argument : int { kSource = 1, kResult = 17, kWeights = 33 };
  struct Bound {
    int argument;
    Handle memory;
  };

  // Null without oneDNN 3.
  static OneDnn* Get() {
    static OneDnn instance;
    return instance.stream_ == nullptr ? nullptr : &instance;
  }
  const std::string& version() const { return version_; }

  Handle Dense(Type type, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) {
    const std::array<int64_t, 2> dims = {rows, cols}, strides = {row_stride, col_stride};
    Handle desc = nullptr;
    Check(Call<int(Handle*, int, const int64_t*, int, const int64_t*)>(
        "dnnl_memory_desc_create_with_strides")(&desc, 2, dims.data(), type, strides.data()));
    return desc;
  }
  // In the layout that the product likes best.
  Handle Any(Type type, int64_t rows, int64_t cols) {
    constexpr int kAnyTag = 1;
    const std::array<int64_t, 2> dims = {rows, cols};
    Handle desc = nullptr;
    Check(Call<int(Handle*, int, const int64_t*, int, int)>("dnnl_memory_desc_create_with_tag")(
        &desc, 2, dims.data(), type, kAnyTag));
    return desc;
  }
  size_t Bytes(Handle desc) { return Call<size_t(Handle)>("dnnl_memory_desc_get_size")(desc); }
  Handle Memory(Handle desc, void* data) {
    Handle memory = nullptr;
    Check(Call<int(Handle*, Handle, Handle, void*)>("dnnl_memory_create")(&memory, desc, engine_,
                                                                          data));
    return memory;
  }
  Handle Reorder(Handle from, Handle to) {
    Handle desc = nullptr;
    Check(Call<int(Handle*, Handle, Handle, Handle, Handle, Handle)>(
        "dnnl_reorder_primitive_desc_create")(&desc, from, engine_, to, engine_, nullptr));
    return Primitive(desc);
  }
  // The product's description; with `accumulate` it adds to what is there.
  Handle Product(Handle a, Handle b, Handle c, bool accumulate) {
    Handle attributes = nullptr, sums = nullptr, desc = nullptr;
    Check(Call<int(Handle*)>("dnnl_primitive_attr_create")(&attributes));
    if (accumulate) {
      Check(Call<int(Handle*)>("dnnl_post_ops_create")(&sums));
      Check(Call<int(Handle, float, int32_t, int)>("dnnl_post_ops_append_sum")(sums, 1.0F, 0, 0));
      Check(Call<int(Handle, Handle)>("dnnl_primitive_attr_set_post_ops")(attributes, sums));
    }
    Check(Call<int(Handle*, Handle, Handle, Handle, Handle, Handle, Handle)>(
        "dnnl_matmul_primitive_desc_create")(&desc, engine_, a, b, nullptr, c, attributes));
    return desc;
  }
  // The layout chosen for an operand: 129 the left one, 131 the right one.
  Handle Chosen(Handle product, int which) {
    return Call<Handle(Handle, int, int)>("dnnl_primitive_desc_query_md")(product, which, 0);
  }
  Handle Primitive(Handle desc) {
    Handle primitive = nullptr;
    Check(Call<int(Handle*, Handle)>("dnnl_primitive_create")(&primitive, desc));
    return primitive;
  }
  void Execute(Handle primitive, const std::vector<Bound>& arguments) {
    Check(execute_(primitive, stream_, static_cast<int>(arguments.size()), arguments.data()));
  }
  void Wait() { Check(wait_(stream_)); }

 private:
  OneDnn() {
    library_ = dlopen("libdnnl.so.3", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return;
    struct Version {
      int major, minor, patch;
    };
    const auto* v = Call<const Version*()>("dnnl_version")();
    version_ = std::to_string(v->major) + "." + std::to_string(v->minor);
    execute_ = Call<int(Handle, Handle, int, const Bound*)>("dnnl_primitive_execute");
    wait_ = Call<int(Handle)>("dnnl_stream_wait");
    constexpr int kCpu = 1;
    constexpr unsigned kInOrder = 1;
    if (Call<int(Handle*, int, size_t)>("dnnl_engine_create")(&engine_, kCpu, 0) != 0) return;
    Call<int(Handle*, Handle, unsigned)>("dnnl_stream_create")(&stream_, engine_, kInOrder);
  }
  template <typename Function>
  Function* Call(const char* name) {
    auto* function = reinterpret_cast<Function*>(dlsym(library_, name));
    if (function == nullptr) throw std::runtime_error(std::string("oneDNN has no ") + name);
    return function;
  }
  static void Check(int status) {
    if (status != 0) throw std::runtime_error("oneDNN: status " + std::to_string(status));
  }

  void* library_ = nullptr;
  std::string version_;
  Handle engine_ = nullptr;
  Handle stream_ = nullptr;
  int (*execute_)(Handle, Handle, int, const Bound*) = nullptr;
  int (*wait_)(Handle) = nullptr;
};

// One product of `args`, prepared once: A is converted in each run, B too unless it is bf16
// already, then laid out as the product wants it.
class OneDnnBf16 {
 public:
  OneDnnBf16(OneDnn& dnn, const kernels::MatmulArgs& args) : dnn_(dnn) {
    const auto m = static_cast<int64_t>(args.m), n = static_cast<int64_t>(args.n),
               k = static_cast<int64_t>(args.k);
    const bool accumulate = args.epilogue == kernels::MatmulEpilogue::kAccumulate;
    OneDnn::Handle c = dnn.Dense(OneDnn::kF32, m, n, static_cast<int64_t>(args.c_stride), 1);
    OneDnn::Handle desc =
        dnn.Product(dnn.Any(OneDnn::kBf16, m, k), dnn.Any(OneDnn::kBf16, k, n), c, accumulate);
    const auto given = [&](const kernels::MatmulOperand& x, OneDnn::Type type, int64_t rows,
                           int64_t cols) {
      return dnn.Dense(type, rows, cols, static_cast<int64_t>(x.row_stride),
                       static_cast<int64_t>(x.col_stride));
    };
    constexpr int kSourceLayout = 129, kWeightsLayout = 131;
    const kernels::MatmulWeights& b = args.b;
    OneDnn::Handle left = Convert(given(args.a, OneDnn::kF32, m, k), args.a.data,
                                  dnn.Chosen(desc, kSourceLayout), &a_);
    OneDnn::Handle right = b.bf16 == nullptr
                               ? Convert(given(b.strided, OneDnn::kF32, k, n), b.strided.data,
                                         dnn.Chosen(desc, kWeightsLayout), &b_)
                               : Convert(given(b.strided, OneDnn::kBf16, k, n), b.bf16,
                                         dnn.Chosen(desc, kWeightsLayout), &b_);
    steps_.push_back({dnn.Primitive(desc),
                      {{OneDnn::kSource, left},
                       {OneDnn::kWeights, right},
                       {OneDnn::kResult, dnn.Memory(c, args.c)}}});
  }

  void Run() {
    for (const Step& step : steps_) dnn_.Execute(step.primitive, step.arguments);
    dnn_.Wait();
  }

 private:
  struct Step {
    OneDnn::Handle primitive;
    std::vector<OneDnn::Bound> arguments;
  };

  OneDnn::Handle Convert(OneDnn::Handle from, const void* data, OneDnn::Handle to,
                         std::vector<std::byte>* room) {
    constexpr size_t kLine = 64;
    room->resize(dnn_.Bytes(to) + kLine);
    const size_t beyond = reinterpret_cast<uintptr_t>(room->data()) % kLine;
    OneDnn::Handle result = dnn_.Memory(to, room->data() + (kLine - beyond) % kLine);
    steps_.push_back({dnn_.Reorder(from, to),
                      {{OneDnn::kSource, dnn_.Memory(from, const_cast<void*>(data))},
                       {OneDnn::kResult, result}}});
    return result;
  }

  OneDnn& dnn_;
  std::vector<std::byte> a_, b_;
  std::vector<Step> steps_;
};

}  // namespace lanewise::bench

#endif  // __has_include(<dlfcn.h>)

#endif  // LANEWISE_BENCH_KERNELS_ONEDNN_BF16_H_

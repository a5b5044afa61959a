# lanewise_options: how the project's own files are compiled. Never given to third-party code.
add_library(lanewise_options INTERFACE)
target_compile_features(lanewise_options INTERFACE cxx_std_20)

if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  target_compile_options(
    lanewise_options
    INTERFACE -Wall -Wextra -Wshadow -Wfloat-conversion -Wnon-virtual-dtor -Woverloaded-virtual
              -Wextra-semi
              # GCC's note about the ABI of vector parameters: no such parameter crosses a library.
              -Wno-psabi
              # errno and traps of libm stop vectorization and nobody reads them. This is not
              # -ffast-math: NaN and infinity must propagate.
              -fno-math-errno -fno-trapping-math
              # Kernels read the same memory as float, uint32_t and pairs of bf16. Highway's loads
              # are exempt from the rule of types on x86, but not on Arm since GCC 14.
              -fno-strict-aliasing
              # A product and a sum are fused where the code says so and nowhere else: otherwise
              # the same row could round differently in a loop's body and in its remainder.
              -ffp-contract=off)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # libstdc++ 12 implements std::stable_sort with a function that it deprecates.
    target_compile_options(lanewise_options INTERFACE -Wno-deprecated-declarations)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 warns of overlaps in "text" + std::string that are none (GCC bug 105651).
    target_compile_options(lanewise_options INTERFACE -Wno-restrict)
  endif()
  if(LANEWISE_WERROR)
    target_compile_options(lanewise_options INTERFACE -Werror)
  endif()
endif()

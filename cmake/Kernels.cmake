# Which SIMD targets are compiled, and the register of kernels.

# Every target compiles every kernel once more. On x86-64 the default is three of Highway's eight:
# the baseline (SSE2, any CPU), AVX2 and AVX3 (AVX-512: Skylake-X and later, Sapphire Rapids, Zen 4,
# Zen 5). The Zen 4 and Sapphire Rapids targets differ from AVX3 for float32 in nothing that matters
# here, but they have bfloat16 dot products: files with `bf16` in their names get these two as well.
# Each file dispatches among the targets it was compiled for, so on such a CPU both kinds choose
# rightly. On Arm it is four of six or seven: NEON, SVE, and SVE of 16 and 32 bytes; what is left out
# (NEON with AES, SVE2, bfloat16) is the same for float32. `bf16` files get NEON alone, without and
# with bfloat16: Highway's SVE does not multiply pairs of bfloat16, and the CPUs that have SVE and
# bfloat16 (Neoverse V1 and later) do it as fast by NEON. Other architectures keep Highway's
# defaults.
set(lanewise_target_definitions "")
set(lanewise_bf16_target_definitions "")
set(lanewise_all_target_definitions "")
if(LANEWISE_NATIVE)
  set(lanewise_target_definitions HWY_COMPILE_ONLY_STATIC)
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS -march=native)
  check_cxx_source_compiles(
    "#if !defined(__AVX512BF16__) || defined(__AVX512FP16__)
     #error not a Zen 4
     #endif
     int main() {}"
    LANEWISE_NATIVE_ZEN4)
  unset(CMAKE_REQUIRED_FLAGS)
  if(LANEWISE_NATIVE_ZEN4)
    # Highway takes this target for a baseline only on request.
    list(APPEND lanewise_target_definitions HWY_WANT_AVX3_ZEN4)
  endif()
  set(lanewise_bf16_target_definitions ${lanewise_target_definitions})
  set(lanewise_all_target_definitions ${lanewise_target_definitions})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(lanewise_target_definitions
      "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_AVX3_DL|HWY_AVX3_ZEN4|HWY_AVX3_SPR)")
  set(lanewise_bf16_target_definitions "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_SSE4|HWY_AVX3_DL)")
  set(lanewise_all_target_definitions ${lanewise_bf16_target_definitions})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(lanewise_target_definitions "HWY_DISABLED_TARGETS=(HWY_NEON|HWY_NEON_BF16|HWY_SVE2)")
  set(lanewise_bf16_target_definitions
      "HWY_DISABLED_TARGETS=(HWY_NEON|HWY_SVE|HWY_SVE2|HWY_SVE_256|HWY_SVE2_128)")
endif()

# lanewise_set_targets(FILES...): gives each file of SIMD code the definitions that select its targets.
function(lanewise_set_targets)
  foreach(file IN LISTS ARGN)
    # kernels/targets.cc names the machine's best target, so it and its test have to know them all.
    if(file MATCHES "kernels/targets(_test)?\\.cc$")
      set(definitions ${lanewise_all_target_definitions})
    elseif(file MATCHES "bf16")
      set(definitions ${lanewise_bf16_target_definitions})
    else()
      set(definitions ${lanewise_target_definitions})
    endif()
    set_property(SOURCE ${file} APPEND PROPERTY COMPILE_DEFINITIONS ${definitions})
    if(LANEWISE_NATIVE)
      # Only these: the rest of a program can still say on an older CPU that it is the wrong build.
      set_property(SOURCE ${file} APPEND PROPERTY COMPILE_OPTIONS -march=native)
    endif()
  endforeach()
endfunction()

# lanewise_add_kernel(STEM): a kernel comes with its contract, its reference, its proof and its speed.
function(lanewise_add_kernel stem)
  foreach(file kernels/${stem}.h kernels/${stem}.cc kernels/reference/${stem}.h
               tests/kernels/${stem}_test.cc bench/kernels/${stem}_bench.cc)
    if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "kernel '${stem}': ${file} is missing (see lanewise_add_kernel)")
    endif()
  endforeach()
endfunction()

// Libraries that a user could take instead, found when the program starts: nothing links to them.
#ifndef LANEWISE_BENCH_KERNELS_MATMUL_PEERS_H_
#define LANEWISE_BENCH_KERNELS_MATMUL_PEERS_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/targets.h"

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#define LANEWISE_BENCH_HAS_DLOPEN 1
#endif

namespace lanewise::bench {

// C = A·B + beta·C, all row-major and dense; a transposed operand is stored [k,m] or [n,k].
struct SgemmArgs {
  bool transpose_a, transpose_b;
  size_t m, n, k;
  const float* a;
  const float* b;
  float beta;
  float* c;
};
using Sgemm = std::function<void(const SgemmArgs&)>;

struct Peer {
  std::string name;
  Sgemm sgemm;
};

#if LANEWISE_BENCH_HAS_DLOPEN
inline void AddOpenBlas(std::vector<Peer>& peers) {
  // Versions older than the CPU take it for one without AVX-512, at a fifth of the speed.
  const std::string_view target = kernels::TargetName();
  if (target.starts_with("AVX3")) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
  if (target == "AVX2") setenv("OPENBLAS_CORETYPE", "Haswell", 0);
  setenv("OPENBLAS_NUM_THREADS", "1", 0);
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return;
  using Function = void (*)(int, int, int, int, int, int, float, const float*, int, const float*,
                            int, float, float*, int);
  const auto sgemm = reinterpret_cast<Function>(dlsym(library, "cblas_sgemm"));
  if (sgemm == nullptr) return;
  peers.push_back({"openblas", [sgemm](const SgemmArgs& s) {
                     constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;
                     const auto as_int = [](size_t x) { return static_cast<int>(x); };
                     sgemm(kRowMajor, s.transpose_a ? kTranspose : kNoTranspose,
                           s.transpose_b ? kTranspose : kNoTranspose, as_int(s.m), as_int(s.n),
                           as_int(s.k), 1.0f, s.a, as_int(s.transpose_a ? s.m : s.k), s.b,
                           as_int(s.transpose_b ? s.k : s.n), s.beta, s.c, as_int(s.n));
                   }});
}

inline void AddOneDnn(std::vector<Peer>& peers) {
  // Not more than the target that is measured.
  if (std::string_view(kernels::TargetName()) == "AVX2") setenv("DNNL_MAX_CPU_ISA", "AVX2", 0);
  setenv("OMP_NUM_THREADS", "1", 0);
  void* library = nullptr;
  for (const char* name : {"libdnnl.so.3", "libdnnl.so.2"}) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) return;
  using Function = int (*)(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                           const float*, int64_t, float, float*, int64_t);
  const auto sgemm = reinterpret_cast<Function>(dlsym(library, "dnnl_sgemm"));
  if (sgemm == nullptr) return;
  peers.push_back({"onednn", [sgemm](const SgemmArgs& s) {
                     const auto as_int = [](size_t x) { return static_cast<int64_t>(x); };
                     sgemm(s.transpose_a ? 'T' : 'N', s.transpose_b ? 'T' : 'N', as_int(s.m),
                           as_int(s.n), as_int(s.k), 1.0f, s.a, as_int(s.transpose_a ? s.m : s.k),
                           s.b, as_int(s.transpose_b ? s.k : s.n), s.beta, s.c, as_int(s.n));
                   }});
}
#endif

// Those found, each on one thread unless the environment says otherwise.
inline const std::vector<Peer>& Peers() {
  static const std::vector<Peer> peers = [] {
    std::vector<Peer> found;
#if LANEWISE_BENCH_HAS_DLOPEN
    AddOpenBlas(found);
    AddOneDnn(found);
#endif
    return found;
  }();
  return peers;
}

}  // namespace lanewise::bench

#endif  // LANEWISE_BENCH_KERNELS_MATMUL_PEERS_H_

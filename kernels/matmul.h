// Matrix product, float32 sums. Single-threaded over a range of C; does not allocate.
//
// Weights may be stored as bf16, and `bf16` allows both operands to be rounded to it (to nearest
// even) where the CPU multiplies bf16 faster than float32: see Bf16Unit.
//
//   C[m,n] = epilogue(sum_k A[m,k] * B[k,n])
//
// All three forms of a layer are strides of the same call: y = x·W and dX = dY·Wᵀ differ in B's
// strides, dW = xᵀ·dY in A's. The sum of an element of C runs over k in an order that depends on
// k, the layouts, the size of B, the unit and whether the call has few rows (kMatmulSkinnyRows),
// never on the range asked for: any partition of C gives the same bits. NaN and infinity propagate.
#ifndef LANEWISE_KERNELS_MATMUL_H_
#define LANEWISE_KERNELS_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/view.h"

namespace lanewise::kernels {

// A read-only operand: element (r, c) is data[r * row_stride + c * col_stride].
struct MatmulOperand {
  const float* data = nullptr;
  size_t row_stride = 0;
  size_t col_stride = 1;
};

// A row-major matrix, as it lies or transposed.
inline MatmulOperand AsOperand(Mat<const float> x) { return {x.data, x.stride, 1}; }
inline MatmulOperand AsTransposed(Mat<const float> x) { return {x.data, 1, x.stride}; }

// The right operand: float32, or bf16 when `bf16` is not null (then strided.data is not read, its
// strides count).
struct MatmulWeights {
  MatmulOperand strided = {};
  const BFloat16* bf16 = nullptr;
};

enum class MatmulEpilogue : uint8_t {
  kOverwrite,   // C = A·B
  kAccumulate,  // C = C + A·B
  kResidual,    // C = R + A·B; R may be C
  kBias,        // C[m,n] = bias[n] + A·B; bias is `residual`, its stride is ignored
};

struct MatmulArgs {
  MatmulOperand a;      // [m,k]
  MatmulWeights b;      // [k,n]
  float* c = nullptr;   // [m,n], must not overlap a or b
  size_t c_stride = 0;  // >= n
  size_t m = 0;
  size_t n = 0;
  size_t k = 0;  // 0: the product is zero, the epilogue still applies
  MatmulEpilogue epilogue = MatmulEpilogue::kOverwrite;
  const float* residual = nullptr;
  size_t residual_stride = 0;
  bool bf16 = false;  // operands may be rounded to bf16
};

// Rows [m_begin, m_end) and columns [n_begin, n_end) of C. Multiples of the tile are
// fastest.
struct MatmulRange {
  size_t m_begin = 0;
  size_t m_end = 0;
  size_t n_begin = 0;
  size_t n_end = 0;
};

// Products with at most this many rows stream B once, unless it is small.
inline constexpr size_t kMatmulSkinnyRows = 16;

// What one register tile covers on this machine. For partitions; does not change results.
struct MatmulTile {
  size_t rows = 0;
  size_t columns = 0;
};
MatmulTile MatmulTileSize(bool bf16 = false);

// Bytes of scratch (any alignment) that Matmul needs for any range of a product of this shape.
size_t MatmulScratchBytes(size_t m, size_t n, size_t k, bool bf16 = false);

// Bytes of a core's second-level cache, which blocks are cut for; 256 KiB to 2 MiB are used of it.
// 0, the default: what CPUID tells, on other CPUs than x86 512 KiB; with the first product of
// runtime/matmul.h, what the system tells. Neither results nor sizes of scratch depend on it; must
// not be called while a kernel runs.
void SetMatmulCacheBytes(size_t bytes);
// What was set, as far as it is used; 0 for the default.
size_t MatmulCacheBytes();

// What computes products that may round to bf16. Chosen by the CPU alone, never by timing.
enum class Bf16Unit : uint8_t {
  kFloat32,  // no fast instruction: bf16 weights are widened, nothing else is rounded
  kDot,      // vector dot products of pairs (Zen 4 and later, Arm with BF16); smaller products than
             // 64 in some dimension stay float32
  kAmx,      // Intel's tiles
};
Bf16Unit MatmulBf16Unit();
// Whether this CPU has the unit; one that was forced without is computed in software.
bool HasBf16Unit(Bf16Unit unit);
// "float32", "dot" or "amx".
const char* Name(Bf16Unit unit);
// For tests and benches: the named unit (letter case is ignored), or the CPU's own with "" or
// "auto". False if the name is unknown. Process-wide; must not be called while a kernel runs.
bool ForceBf16Unit(std::string_view name);

// Computes one range of C. Throws nothing; the caller has checked the shapes.
// Error: |C - exact| <= kMatmulTolerance * (|A|·|B| + |what the epilogue adds|) element by element;
// with kMatmulBf16Tolerance where the operands are rounded.
void Matmul(const MatmulArgs& args, const MatmulRange& range, std::span<std::byte> scratch);
// All of C.
void Matmul(const MatmulArgs& args, std::span<std::byte> scratch);

// Float32 rounding of sums of up to some thousand terms, relative to their magnitudes. It goes in
// one direction where the terms are equal: then by up to 2^-24 k more (seen: 1.4e-5 for k = 4096).
inline constexpr double kMatmulTolerance = 2e-6;
// The same where both operands are rounded to bf16 (of 8 significant bits, so by up to 1/257 of the
// value, unless that is below 2^-126 or beyond the largest bf16).
inline constexpr double kMatmulBf16Tolerance = 7.81e-3;

}  // namespace lanewise::kernels

#endif  // LANEWISE_KERNELS_MATMUL_H_

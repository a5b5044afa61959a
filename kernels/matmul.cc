#include "kernels/matmul.h"

#include <algorithm>
#include <cstddef>
#include <span>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"
#include "kernels/matmul/blocks-inl.h"
#include "kernels/matmul/panels-inl.h"
#include "kernels/matmul/skinny-inl.h"
#include "kernels/matmul_bf16.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

// Not inlined: small products would set up its frame.
HWY_NOINLINE void LargeMatmulOf(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  if (matmul::IsSkinny(args)) {
    matmul::RunSkinny(args, range, scratch);
  } else {
    matmul::BlockedProduct(args, range, scratch).Run();
  }
}

void MatmulOf(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  if (range.m_begin >= range.m_end || range.n_begin >= range.n_end) return;
  if (matmul::IsResident(args)) {
    matmul::RunResident(args, range, scratch);
  } else {
    LargeMatmulOf(args, range, scratch);
  }
}

bool IsSkinnyOf(const MatmulArgs& args) { return matmul::IsSkinny(args); }
bool IsSkinnyDotOf(const MatmulArgs& args) { return matmul::IsSkinnyDot(args); }

size_t ScratchBytesOf(size_t m, size_t n, size_t k) {
  return std::max(matmul::BlockedProduct::ScratchBytes(m, n, k),
                  matmul::SkinnyScratchBytes(m, n, k));
}

MatmulTile TileSizeOf() { return {matmul::kTileRows, matmul::TileColumns()}; }

}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {

HWY_EXPORT(MatmulOf);
HWY_EXPORT(IsSkinnyOf);
HWY_EXPORT(IsSkinnyDotOf);
HWY_EXPORT(ScratchBytesOf);
HWY_EXPORT(TileSizeOf);

namespace {

// Dot products are twice as fast as float32, but operands are converted first: with fewer rows
// (unless they are so few that the weights are read in place), columns or steps that takes longer
// than it saves.
constexpr size_t kLeastForDot = 64;

bool RoundsToBf16(const MatmulArgs& args) {
  if (!args.bf16) return false;
  switch (MatmulBf16Unit()) {
    case Bf16Unit::kFloat32:
      return false;
    case Bf16Unit::kDot:
      return std::min(args.n, args.k) >= kLeastForDot &&
             (args.m >= kLeastForDot || HWY_DYNAMIC_DISPATCH(IsSkinnyDotOf)(args));
    case Bf16Unit::kAmx:
      // With few rows the work is to read the weights, and float32 arithmetic is free.
      return !HWY_DYNAMIC_DISPATCH(IsSkinnyOf)(args);
  }
  return false;
}

}  // namespace

MatmulTile MatmulTileSize(bool bf16) {
  if (bf16 && MatmulBf16Unit() != Bf16Unit::kFloat32) return MatmulBf16TileSize();
  return HWY_DYNAMIC_DISPATCH(TileSizeOf)();
}

size_t MatmulScratchBytes(size_t m, size_t n, size_t k, bool bf16) {
  const size_t bytes = HWY_DYNAMIC_DISPATCH(ScratchBytesOf)(m, n, k);
  if (!bf16 || MatmulBf16Unit() == Bf16Unit::kFloat32) return bytes;
  return std::max(bytes, MatmulBf16ScratchBytes(m, n, k));
}

void Matmul(const MatmulArgs& args, const MatmulRange& range, std::span<std::byte> scratch) {
  if (RoundsToBf16(args)) {
    MatmulBf16(args, range, scratch.data());
    return;
  }
  HWY_DYNAMIC_DISPATCH(MatmulOf)(args, range, scratch.data());
}

void Matmul(const MatmulArgs& args, std::span<std::byte> scratch) {
  Matmul(args, {0, args.m, 0, args.n}, scratch);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE

#include "kernels/matmul_bf16.h"

#include <atomic>
#include <cstddef>
#include <string_view>

#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul_bf16.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"
#include "kernels/matmul/bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {

void MatmulBf16Of(const MatmulArgs& args, const MatmulRange& range, bool amx, bool emulated,
                  void* scratch) {
  if (range.m_begin >= range.m_end || range.n_begin >= range.n_end) return;
  if (!amx && matmul::IsSkinnyDot(args)) {
    matmul::RunSkinnyDot(args, range, scratch);
  } else {
    matmul::Bf16Product(args, range, amx, emulated, scratch).Run();
  }
}

size_t Bf16ScratchBytesOf(size_t m, size_t n, size_t k, bool amx) {
  return matmul::Bf16Product::ScratchBytes(m, n, k, amx);
}

MatmulTile Bf16TileSizeOf(bool amx) {
  const matmul::Bf16Geometry geometry(amx);
  return {geometry.rows, geometry.columns};
}

Bf16Unit UnitOf() {
#if HWY_ARCH_X86
  // A target below AVX-512 that was forced stands for a CPU that has no tiles either.
  if (HWY_TARGET <= HWY_AVX3 && kernels::matmul::HasAmx()) return Bf16Unit::kAmx;
#endif
  return matmul::kFastDot ? Bf16Unit::kDot : Bf16Unit::kFloat32;
}

bool HasDotOf() { return matmul::kNativeDot; }

}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lanewise::kernels {
namespace {

HWY_EXPORT(MatmulBf16Of);
HWY_EXPORT(Bf16ScratchBytesOf);
HWY_EXPORT(Bf16TileSizeOf);
HWY_EXPORT(UnitOf);
HWY_EXPORT(HasDotOf);

// What ForceBf16Unit asked for; -1: the CPU's own.
std::atomic<int> forced_unit{-1};

}  // namespace

Bf16Unit MatmulBf16Unit() {
  const int forced = forced_unit.load(std::memory_order_relaxed);
  if (forced >= 0) return static_cast<Bf16Unit>(forced);
  return HWY_DYNAMIC_DISPATCH(UnitOf)();
}

bool HasBf16Unit(Bf16Unit unit) {
  if (unit == Bf16Unit::kAmx) return matmul::HasAmx();
  return unit == Bf16Unit::kFloat32 || HWY_DYNAMIC_DISPATCH(HasDotOf)();
}

const char* Name(Bf16Unit unit) {
  switch (unit) {
    case Bf16Unit::kFloat32:
      return "float32";
    case Bf16Unit::kDot:
      return "dot";
    case Bf16Unit::kAmx:
      return "amx";
  }
  return "";
}

bool ForceBf16Unit(std::string_view name) {
  if (name.empty() || SameName(name, "auto")) {
    forced_unit = -1;
    return true;
  }
  for (const Bf16Unit unit : {Bf16Unit::kFloat32, Bf16Unit::kDot, Bf16Unit::kAmx}) {
    if (SameName(name, Name(unit))) {
      forced_unit = static_cast<int>(unit);
      return true;
    }
  }
  return false;
}

MatmulTile MatmulBf16TileSize() {
  return HWY_DYNAMIC_DISPATCH(Bf16TileSizeOf)(MatmulBf16Unit() == Bf16Unit::kAmx);
}

size_t MatmulBf16ScratchBytes(size_t m, size_t n, size_t k) {
  return HWY_DYNAMIC_DISPATCH(Bf16ScratchBytesOf)(m, n, k, MatmulBf16Unit() == Bf16Unit::kAmx);
}

void MatmulBf16(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  HWY_DYNAMIC_DISPATCH(MatmulBf16Of)
  (args, range, MatmulBf16Unit() == Bf16Unit::kAmx, !matmul::HasAmx(), scratch);
}

}  // namespace lanewise::kernels
#endif  // HWY_ONCE

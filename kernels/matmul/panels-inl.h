// Operands that stay in the caches, or that are met once: panel after panel of B, and all rows of A
// past each. Nothing is packed but what tiles cannot read where it lies.
#if defined(LANEWISE_KERNELS_MATMUL_PANELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_PANELS_INL_H_
#undef LANEWISE_KERNELS_MATMUL_PANELS_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_PANELS_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/pack-inl.h"
#include "kernels/matmul/parts-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Floats of the largest panel of so many steps.
HWY_INLINE size_t PanelFloats(size_t k) { return kWideVectors * hn::Lanes(DF()) * k; }

// Rows of B spread over more memory than this, in floats, may share few sets of L1; for so many
// rows of C and more, narrow panels are packed then.
inline constexpr size_t kSpreadFloats = size_t{8} << 10;
inline constexpr size_t kSpreadRows = 32;

// Sums of so many steps, with more floats of A and C than this, fetch the next rows of A and their
// own of C meanwhile: in a model's step they come from beyond L2, at two thirds of the speed
// without.
inline constexpr size_t kFetchedSteps = 64;
inline constexpr size_t kFetchedFloats = size_t{12} << 10;

// C = epilogue(A * B). A is contiguous in k or in m. A panel of B is packed into `panel` if its
// columns are not side by side, do not fill whole vectors, or are too far apart from row to row.
HWY_INLINE void RunPanels(const MatmulArgs& args, const MatmulRange& range, float* panel) {
  const size_t lanes = hn::Lanes(DF());
  const bool along_k = args.a.col_stride == 1;
  const MatmulOperand& b = args.b.strided;
  const Addend add = EpilogueAddend(args);
  Tile tile;
  tile.a_row = args.a.row_stride;
  tile.a_k = args.a.col_stride;
  tile.c_row = args.c_stride;
  tile.add_row = add.stride;
  tile.k = args.k;
  const size_t all_rows = range.m_end - range.m_begin;
  const bool fetch =
      along_k && args.k >= kFetchedSteps && all_rows * (args.k + args.n) > kFetchedFloats;
  const bool spread =
      lanes < kLineFloats && b.row_stride * args.k > kSpreadFloats && all_rows >= kSpreadRows;
  for (size_t column = range.n_begin; column < range.n_end;) {
    const size_t left = range.n_end - column;
    const size_t width = NextPart(CeilDiv(left, lanes), kWideVectors);
    const size_t columns = std::min(width * lanes, left);
    const float* from = b.data + column * b.col_stride;
    tile.last = columns % lanes;
    const bool packed = b.col_stride != 1 || tile.last != 0 || spread;
    if (packed) PackBPanel(from, b.row_stride, b.col_stride, columns, args.k, panel);
    tile.b = packed ? panel : from;
    tile.b_k = packed ? width * lanes : b.row_stride;
    for (size_t row = range.m_begin; row < range.m_end;) {
      const size_t rows = NextPart(range.m_end - row, kTallRows[width - 1]);
      tile.a = args.a.data + row * args.a.row_stride;
      tile.c = args.c + row * args.c_stride + column;
      tile.add = add.data == nullptr ? nullptr : add.data + row * add.stride + column;
      Ahead next_rows;
      if (fetch && column == range.n_begin) {
        next_rows = Ahead(tile.a + rows * tile.a_row, tile.a_row,
                          std::min(rows, range.m_end - row - rows), args.k);
      }
      tile.ahead = &next_rows;
      (fetch ? SelectTile<kFetchPanels>(along_k, rows, width)
             : SelectTile<0>(along_k, rows, width))(tile);
      row += rows;
    }
    column += columns;
  }
}

// Steps of k whose panels of B stay in L1.
inline constexpr size_t kResidentSteps = 128;
// Operands of at most this many floats stay in L2.
inline constexpr size_t kResidentFloats = size_t{96} << 10;

// A sum over no more steps than this costs less in a packed panel than as a dot product.
inline constexpr size_t kShortDotSteps = 32;

// Whether a product's operands stay in the caches and tiles can read A where it lies. Depends on
// the product alone, never on the range; with few rows, not on their number either: the order of
// the sums does.
HWY_INLINE bool IsResident(const MatmulArgs& args) {
  const MatmulOperand& a = args.a;
  const MatmulOperand& b = args.b.strided;
  if (args.k > kResidentSteps || args.b.bf16 != nullptr) return false;
  if (a.col_stride != 1 && a.row_stride != 1) return false;
  const size_t a_floats = a.col_stride == 1 ? a.row_stride * args.m : a.col_stride * args.k;
  const size_t b_floats = b.col_stride == 1 ? b.row_stride * args.k : b.col_stride * args.n;
  if (args.m > kMatmulSkinnyRows) return std::max(a_floats, b_floats) <= kResidentFloats;
  return b_floats <= kResidentFloats && (b.col_stride == 1 || args.k <= kShortDotSteps);
}

HWY_INLINE void RunResident(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  RunPanels(args, range, AlignUp(scratch));
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard

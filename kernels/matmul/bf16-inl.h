// Products of operands rounded to bf16: packs both into the order in which the unit reads them,
// block by block, and walks the tiles. One packing serves vector dot products and AMX.
#if defined(LANEWISE_KERNELS_MATMUL_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_BF16_INL_H_
#undef LANEWISE_KERNELS_MATMUL_BF16_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_BF16_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/amx.h"
#include "kernels/matmul/bf16_pack-inl.h"
#include "kernels/matmul/bf16_tile.h"
#include "kernels/matmul/dot-inl.h"
#include "kernels/matmul/parts-inl.h"
#include "kernels/matmul/skinny-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

using kernels::matmul::Ahead;
using kernels::matmul::Bf16Tile;
using kernels::matmul::kBf16Steps;
using kernels::matmul::kLineFloats;

// Longest sum kept in registers: more would leave too few columns of B in L2. Dot products find
// their rows of A in L1; AMX reads both operands from L2.
inline constexpr size_t kBf16BlockK = 1024;
// bf16 of packed B that stay in L2, and of packed A that may come from L3.
inline constexpr size_t kBf16BlockB = size_t{256} << 10;
inline constexpr size_t kBf16BlockA = size_t{1} << 20;
// Beside the row, so that rows do not fall onto the same lines of the cache.
inline constexpr size_t kBf16RowPadding = 32;

// What a unit computes at once.
struct Bf16Geometry {
  size_t rows, columns;

  explicit Bf16Geometry(bool amx)
      : rows(amx ? kernels::matmul::kAmxRows : kTileRows),
        columns(amx ? kernels::matmul::kAmxColumns : TileColumns()) {}
};

HWY_INLINE size_t RoundUp(size_t x, size_t unit) { return CeilDiv(x, unit) * unit; }

// One product over one range, in blocks: rows, then k, then columns. A block of A is converted when
// the first block of columns meets it, a block of B when it is met.
class Bf16Product {
 public:
  HWY_INLINE Bf16Product(const MatmulArgs& args, const MatmulRange& range, bool amx, bool emulated,
                         void* scratch)
      : args_(args),
        range_(range),
        amx_(amx),
        emulated_(emulated),
        geometry_(amx),
        cuts_(range.m_end - range.m_begin, range.n_end - range.n_begin, args.k, geometry_),
        a_(reinterpret_cast<BFloat16*>(AlignUp(scratch))),
        b_(reinterpret_cast<BFloat16*>(AlignUp(a_ + cuts_.ElementsA(geometry_)))) {}

  // Bytes of scratch for any range of a product of this shape.
  static size_t ScratchBytes(size_t m, size_t n, size_t k, bool amx) {
    const Bf16Geometry geometry(amx);
    Cuts cuts(m, n, k, geometry);
    // A range may be cut into larger blocks than the whole.
    cuts.m = Most(m, kBf16BlockA / cuts.k, geometry.rows);
    cuts.n = Most(n, kBf16BlockB / cuts.k, geometry.columns);
    return (cuts.ElementsA(geometry) + cuts.ElementsB()) * sizeof(BFloat16) + 2 * 64;
  }

  void Run() {
    if (amx_ && !emulated_) kernels::matmul::EnterAmx();
    for (size_t m = range_.m_begin; m < range_.m_end; m += cuts_.m) {
      // At least once, so that k = 0 leaves the epilogue.
      for (size_t k = 0; k == 0 || k < args_.k; k += cuts_.k) {
        const Addend add = k == 0 ? EpilogueAddend(args_) : Addend{args_.c, args_.c_stride};
        for (size_t n = range_.n_begin; n < range_.n_end; n += cuts_.n) RunBlock(m, k, n, add);
      }
    }
    if (amx_ && !emulated_) kernels::matmul::LeaveAmx();
  }

 private:
  static size_t Most(size_t size, size_t most, size_t unit) {
    return std::min(RoundUp(std::max(most, unit), unit), RoundUp(std::max(size, unit), unit));
  }

  // Near-equal blocks; k depends on nothing but the product.
  struct Cuts {
    size_t m, n, k;

    HWY_INLINE Cuts(size_t rows, size_t columns, size_t steps, const Bf16Geometry& geometry) {
      k = Near(steps, kBf16BlockK, kBf16Steps);
      m = Near(rows, kBf16BlockA / k, geometry.rows);
      n = Near(columns, kBf16BlockB / k, geometry.columns);
    }
    static size_t Near(size_t size, size_t most, size_t unit) {
      const size_t count = std::max<size_t>(1, CeilDiv(size, std::max(most, unit)));
      return std::max(unit, RoundUp(CeilDiv(size, count), unit));
    }
    size_t RowElements() const { return k + kBf16RowPadding; }
    // Every tile has all its rows, and a transposition may write three more.
    size_t ElementsA(const Bf16Geometry& geometry) const {
      return (CeilDiv(m, geometry.rows) * geometry.rows + 3) * RowElements();
    }
    size_t ElementsB() const { return n * k; }
  };

  void RunBlock(size_t m, size_t k, size_t n, const Addend& add) const {
    const size_t rows = std::min(cuts_.m, range_.m_end - m);
    const size_t columns = std::min(cuts_.n, range_.n_end - n);
    const size_t steps = std::min(cuts_.k, args_.k - k);
    Bf16Tile tile;
    tile.a_row = InPanels() ? 2 : cuts_.RowElements();
    tile.a_pair = InPanels() ? 2 * kTileRows : 2;
    tile.k = RoundUp(steps, kBf16Steps);
    tile.panel = kernels::matmul::kAmxPanelColumns * tile.k;
    tile.c_row = args_.c_stride;
    tile.add_row = add.stride;
    PackColumns(k, steps, tile.k, n, columns);
    Strip strip = StripOf(m, 0, rows, k, steps, n);
    const size_t strip_rows = StripRows();
    const size_t tiles = CeilDiv(columns, geometry_.columns) * (strip_rows / geometry_.rows);
    size_t tiles_done = 0;
    Ahead ahead;
    tile.ahead = &ahead;
    for (size_t row = 0; row < rows; row += geometry_.rows) {
      if (row % strip_rows == 0) {
        strip.ConvertTo(strip.padded);
        strip = StripOf(m, row + strip_rows, rows, k, steps, n);
        tiles_done = 0;
        ahead = strip.Lines();
        tile.ahead_lines = CeilDiv(ahead.Lines(), tiles * std::max<size_t>(1, tile.k / kBf16Steps));
      }
      tile.rows = std::min(geometry_.rows, rows - row);
      tile.a = a_ + row * cuts_.RowElements();
      for (size_t column = 0; column < columns; column += geometry_.columns) {
        tile.columns = std::min(geometry_.columns, columns - column);
        tile.b = b_ + column * tile.k;
        const size_t at_c = (m + row) * tile.c_row + n + column;
        const size_t at_add = (m + row) * tile.add_row + n + column;
        tile.c = args_.c + at_c;
        tile.add = add.data == nullptr ? nullptr : add.data + at_add;
        const bool last = column + geometry_.columns >= columns;
        tile.next = tile.add == nullptr ? tile.c : tile.add;
        tile.next_row = tile.add == nullptr ? tile.c_row : tile.add_row;
        tile.next += last ? geometry_.rows * tile.next_row - column : geometry_.columns;
        RunTile(tile);
        // No further than has been fetched.
        if (SideBySide()) strip.ConvertTo(++tiles_done * strip.padded / tiles);
      }
    }
  }

  // Whether the rows of A lie side by side: a transposed activation.
  bool SideBySide() const { return args_.a.row_stride == 1 && args_.a.col_stride != 1; }

  // Dot products take such rows in panels, which spares a transposition.
  bool InPanels() const { return SideBySide() && !amx_; }

  // Rows of A that are converted at once. Side by side: whole cache lines of them, step by step
  // between the tiles of the strip above, because the lines of all steps may not stay in L2
  // together. Otherwise a tile's, just before it, so that it finds them in L1.
  size_t StripRows() const {
    return SideBySide() ? RoundUp(kLineFloats, geometry_.rows) : geometry_.rows;
  }

  // Such a strip, converted up to step `done`.
  struct Strip {
    MatmulOperand a = {};
    size_t rows = 0, steps = 0, padded = 0;
    bool in_panels = false;
    BFloat16* out = nullptr;
    size_t out_row = 0;
    size_t done = 0;

    // In the order in which they are converted.
    Ahead Lines() const {
      if (a.col_stride == 1) return {a.data, a.row_stride, rows, steps};
      return {a.data, a.col_stride, a.row_stride == 1 ? steps : 0, rows};
    }
    // Whole kBf16Steps of the first `end` steps.
    void ConvertTo(size_t end) {
      const size_t count = end / kBf16Steps * kBf16Steps - done;
      if (count == 0) return;
      const size_t valid = std::min(count, steps - std::min(steps, done));
      const float* from = a.data + done * a.col_stride;
      if (in_panels) {
        PackBf16Panels(from, a.col_stride, rows, valid, count, out + done * kTileRows,
                       out_row * kTileRows);
      } else {
        PackBf16Rows(from, a.row_stride, a.col_stride, rows, valid, count, out + done, out_row);
      }
      done += count;
    }
  };

  // The strip from `row` of a block of `rows` rows; empty where there is nothing to convert.
  Strip StripOf(size_t m, size_t row, size_t rows, size_t k, size_t steps, size_t n) const {
    if (n != range_.n_begin || row >= rows) return {};
    Strip strip;
    strip.a = args_.a;
    strip.a.data += (m + row) * args_.a.row_stride + k * args_.a.col_stride;
    strip.rows = std::min(StripRows(), rows - row);
    strip.steps = steps;
    strip.padded = RoundUp(steps, kBf16Steps);
    strip.in_panels = InPanels();
    strip.out_row = cuts_.RowElements();
    strip.out = a_ + row * strip.out_row;
    return strip;
  }

  void RunTile(const Bf16Tile& tile) const {
    if (!amx_) {
      RunDotTile(tile);
    } else if (emulated_) {
      kernels::matmul::RunEmulatedAmxTile(tile);
    } else {
      kernels::matmul::RunAmxTile(tile);
    }
  }

  // The columns of a block, in panels of a tile's columns, of sixteen for AMX.
  void PackColumns(size_t k, size_t steps, size_t padded, size_t column, size_t columns) const {
    const size_t width = amx_ ? kernels::matmul::kAmxPanelColumns : geometry_.columns;
    const MatmulOperand& b = args_.b.strided;
    const size_t offset = k * b.row_stride + column * b.col_stride;
    const bool several = args_.b.bf16 == nullptr && b.col_stride == 1 && width == hn::Lanes(DF());
    for (size_t i = 0; i < columns;) {
      const size_t count = std::min(width, columns - i);
      BFloat16* panel = b_ + i * padded;
      if (several && i + kPanelsAtOnce * width <= columns) {
        PackPanelsAtOnce(b.data + offset + i, b.row_stride, steps, padded, panel);
        i += kPanelsAtOnce * width;
        continue;
      }
      // Dot products skip the vectors that hold no column.
      const size_t stored = amx_ ? width : RoundUp(count, hn::Lanes(DF()));
      if (args_.b.bf16 != nullptr) {
        PackPairs(args_.b.bf16 + offset + i * b.col_stride, b.row_stride, b.col_stride, count,
                  steps, padded, stored, panel);
      } else {
        PackPairs(b.data + offset + i * b.col_stride, b.row_stride, b.col_stride, count, steps,
                  padded, stored, panel);
      }
      i += width;
    }
  }

  const MatmulArgs& args_;
  const MatmulRange& range_;
  const bool amx_;
  const bool emulated_;
  const Bf16Geometry geometry_;
  const Cuts cuts_;
  BFloat16* const a_;
  BFloat16* const b_;
};

// Few rows against bf16 weights: these are read in place, only the rows of A are converted.
HWY_INLINE void RunSkinnyDot(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  const size_t padded = SplitSteps(args.k);
  const MatmulOperand& a = args.a;
  BFloat16* rows = reinterpret_cast<BFloat16*>(AlignUp(scratch));
  PackBf16Rows(a.data + range.m_begin * a.row_stride, a.row_stride, a.col_stride,
               range.m_end - range.m_begin, args.k, padded, rows, padded);
  RunSkinnyAlongK(args, args.b.bf16, range, rows, padded);
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard

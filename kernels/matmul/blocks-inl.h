// Blocking: cuts a range of C into blocks whose operands fit the caches, packs what is worth
// packing, and walks the tiles.
#if defined(LANEWISE_KERNELS_MATMUL_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LANEWISE_KERNELS_MATMUL_BLOCKS_INL_H_
#undef LANEWISE_KERNELS_MATMUL_BLOCKS_INL_H_
#else
#define LANEWISE_KERNELS_MATMUL_BLOCKS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/matmul.h"
#include "kernels/matmul/pack-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Longest sum kept in registers: a panel of A stays in L1, and C is read and written only once
// per that many steps. Part of the order of sums, so it is the same on every machine.
inline constexpr size_t kMaxBlockK = 384;
// Floats of packed B and packed A that share L2.
inline constexpr size_t kBlockBFloats = size_t{1} << 18;
inline constexpr size_t kBlockAFloats = size_t{3} << 16;

HWY_INLINE size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

// k in near-equal blocks of a multiple of four.
struct BlocksK {
  size_t count, size;

  explicit BlocksK(size_t k)
      : count(std::max<size_t>(1, CeilDiv(k, kMaxBlockK))),
        size(std::max<size_t>(4, CeilDiv(CeilDiv(k, count), 4) * 4)) {}
};

HWY_INLINE size_t TileColumns() { return kTileVectors * hn::Lanes(DF()); }

// Columns of B per block of k steps, a multiple of the tile; rows of A likewise.
HWY_INLINE size_t BlockColumns(size_t k) {
  return std::max<size_t>(1, kBlockBFloats / k / TileColumns()) * TileColumns();
}
HWY_INLINE size_t BlockRows(size_t k) {
  return std::max<size_t>(1, kBlockAFloats / k / kTileRows) * kTileRows;
}

// Where the next block of a product stands: what all its tiles share.
struct Block {
  const float* a;
  size_t a_row, a_k;  // a_k == 1: read in place
  size_t a_panel;     // floats from tile to tile of a packed a, 0 when a is not packed
  const float* b;     // packed panels, or the operand itself
  size_t b_k;         // row stride of the operand, 0 when packed
  float* c;
  size_t c_row;
  const float* add;
  size_t add_row;
  size_t m, n, k;
  size_t n_limit;  // columns to the end of the panels: n, or more in a range of a larger pack
};

// All tiles of a block; a panel of A stays in L1 while those of B stream past it from L2.
HWY_INLINE void RunBlock(const Block& block) {
  const size_t lanes = hn::Lanes(DF());
  const size_t vectors = CeilDiv(block.n_limit, lanes);
  const RowTiles tiles(block.m);
  Tile tile;
  tile.a_row = block.a_row;
  tile.a_k = block.a_k;
  tile.c_row = block.c_row;
  tile.add_row = block.add_row;
  tile.k = block.k;
  for (size_t i = 0; i < tiles.count; ++i) {
    const size_t row = tiles.Begin(i);
    tile.a = block.a_panel != 0 ? block.a + i * block.a_panel : block.a + row * block.a_row;
    const float* panel = block.b;
    for (size_t column = 0; column < block.n;) {
      const size_t width = PanelVectors(vectors - column / lanes);
      const size_t columns = std::min(width * lanes, block.n - column);
      tile.b = block.b_k != 0 ? block.b + column : panel;
      tile.b_k = block.b_k != 0 ? block.b_k : width * lanes;
      tile.c = block.c + row * block.c_row + column;
      tile.add = block.add == nullptr ? nullptr : block.add + row * block.add_row + column;
      tile.last = columns % lanes;
      SelectTile(block.a_panel == 0 && block.a_k == 1, tiles.Rows(i), width)(tile);
      panel += width * lanes * block.k;
      column += columns;
    }
  }
}

// What the epilogue adds to the product: nothing, C itself, a residual, or one row for all.
struct Addend {
  const float* data;
  size_t stride;
};
HWY_INLINE Addend EpilogueAddend(const MatmulArgs& args) {
  switch (args.epilogue) {
    case MatmulEpilogue::kOverwrite:
      return {nullptr, 0};
    case MatmulEpilogue::kAccumulate:
      return {args.c, args.c_stride};
    case MatmulEpilogue::kResidual:
      return {args.residual, args.residual_stride};
    case MatmulEpilogue::kBias:
      return {args.residual, 0};
  }
  return {nullptr, 0};
}

// Bytes of packed A and B that one range needs at most.
HWY_INLINE size_t BlockedScratchBytes(size_t m, size_t n, size_t k) {
  const size_t size = BlocksK(k).size;
  const size_t lanes = hn::Lanes(DF());
  const size_t rows = std::min(BlockRows(size), CeilDiv(m, kTileRows) * kTileRows);
  const size_t columns = std::min(BlockColumns(size), CeilDiv(n, lanes) * lanes);
  const size_t a_floats = CeilDiv(rows, kTileRows) * kPanelRows * size;
  return (a_floats + columns * size) * sizeof(float) + 2 * 64;
}

HWY_INLINE float* AlignUp(void* p) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + 63) & ~uintptr_t{63});
}

// The general path: blocks of rows, of k, of columns; packs A where it is contiguous in m and B
// always, unless it is packed already or too few rows would use the copy.
HWY_INLINE void RunBlocked(const MatmulArgs& args, const MatmulRange& range, void* scratch) {
  const BlocksK blocks(args.k);
  const bool pack_a = args.a.col_stride != 1;
  const size_t m_step = pack_a ? BlockRows(blocks.size) : range.m_end - range.m_begin;
  const size_t n_step = BlockColumns(blocks.size);
  const Addend addend = EpilogueAddend(args);
  float* a_panels = AlignUp(scratch);
  const size_t m_most = std::min(m_step, range.m_end - range.m_begin);
  float* b_panels = a_panels + (pack_a ? RowTiles(m_most).count * kPanelRows * blocks.size : 0);
  b_panels = AlignUp(b_panels);
  Block block = {};
  block.c_row = args.c_stride;
  for (size_t m0 = range.m_begin; m0 < range.m_end; m0 += block.m) {
    block.m = std::min(m_step, range.m_end - m0);
    for (size_t index = 0; index < blocks.count; ++index) {
      const size_t k0 = index * blocks.size;
      block.k = std::min(blocks.size, args.k - k0);
      block.a = args.a.data + m0 * args.a.row_stride + k0 * args.a.col_stride;
      block.a_row = args.a.row_stride;
      block.a_k = args.a.col_stride;
      if (pack_a) {
        if (args.a.row_stride == 1) {
          PackAAlongM(block.a, args.a.col_stride, block.m, block.k, a_panels);
        } else {
          PackAStrided(block.a, args.a.row_stride, args.a.col_stride, block.m, block.k, a_panels);
        }
        block.a = a_panels;
        block.a_k = kPanelRows;
        block.a_panel = kPanelRows * block.k;
      }
      const Addend add = index == 0 ? addend : Addend{args.c, args.c_stride};
      block.add_row = add.stride;
      for (size_t n0 = range.n_begin; n0 < range.n_end; n0 += block.n) {
        block.n = std::min(n_step, range.n_end - n0);
        block.n_limit = block.n;
        const MatmulOperand& b = args.b.strided;
        PackB(b.data + k0 * b.row_stride + n0 * b.col_stride, b.row_stride, b.col_stride, block.n,
              block.k, b_panels);
        block.b = b_panels;
        block.b_k = 0;
        block.c = args.c + m0 * args.c_stride + n0;
        block.add = add.data == nullptr ? nullptr : add.data + m0 * add.stride + n0;
        RunBlock(block);
      }
    }
  }
}

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard

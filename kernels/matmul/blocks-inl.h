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
#include "kernels/matmul/cache.h"
#include "kernels/matmul/pack-inl.h"
#include "kernels/matmul/panels-inl.h"
#include "kernels/matmul/parts-inl.h"
#include "kernels/matmul/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lanewise::kernels {
namespace HWY_NAMESPACE {
namespace matmul {

// Longest sum kept in registers: a panel of A stays in L1, and C is read and written only once
// per that many steps. Part of the order of sums, so it is the same on every machine.
inline constexpr size_t kMaxBlockK = 384;
// Blocks of B fill half of L2. Those of A pass through it once for each block of B, fetched ahead,
// and may be larger.
HWY_INLINE size_t BlockBFloats(size_t cache) { return cache / 8; }
HWY_INLINE size_t BlockAFloats(size_t cache) { return cache / 4; }
// Rows of B over no more memory than this are as good in place as packed.
HWY_INLINE size_t CompactFloats() { return kernels::matmul::CacheBytes() / 64 * 5; }

// k in near-equal blocks of a multiple of four.
struct BlocksK {
  size_t count, size;

  explicit BlocksK(size_t k)
      : count(std::max<size_t>(1, CeilDiv(k, kMaxBlockK))),
        size(std::max<size_t>(4, CeilDiv(CeilDiv(k, count), 4) * 4)) {}
};

// Fewer tiles of rows than this do not pay for a copy of B.
inline constexpr size_t kTilesWorthPacking = 3;

// Columns of B per block of k steps, a multiple of the tile; rows of A likewise.
HWY_INLINE size_t BlockColumns(size_t k, size_t cache) {
  return std::max<size_t>(1, BlockBFloats(cache) / k / TileColumns()) * TileColumns();
}
HWY_INLINE size_t BlockRows(size_t k, size_t cache) {
  return std::max<size_t>(1, BlockAFloats(cache) / k / kTileRows) * kTileRows;
}

// Room for panels of A, used round and round.
struct PanelRing {
  float* data = nullptr;
  size_t count = 0, floats = 0;  // of panels; of each

  HWY_INLINE float* At(size_t i) const { return data + i % count * floats; }
};

// A block of a product: what all its tiles share. Operands come from where they lie or, where there
// is room for panels, through it: those of A are packed a row of tiles ahead, those of B by the
// tiles that meet them first.
struct Block {
  const float* a;
  size_t a_row, a_k;
  PanelRing panels_a;    // without data: read in place, a_k is 1
  size_t first_panel_a;  // of the first row of tiles
  bool a_ready;          // the panels are filled
  const float* b;
  const BFloat16* b_half;  // not null: B is here instead, and goes through panels
  size_t b_k, b_n;
  float* b_panels;  // null: read in place, b_n is 1
  bool b_ready;
  float* b_edge;  // room for one panel, used when b_panels is null
  float* c;
  size_t c_row;
  const float* add;
  size_t add_row;
  size_t m, n, k;
  bool fetch_a;      // A is too large to be in L2 already
  Ahead next_b;      // what the block after this one will read of B
  PackAhead next_a;  // the first panel of A of that block

  HWY_INLINE float* PanelA(size_t i) const { return panels_a.At(first_panel_a + i); }
  HWY_INLINE size_t Vectors() const { return CeilDiv(n, hn::Lanes(DF())); }  // of a row of C
  HWY_INLINE size_t TilesARow() const { return CeilDiv(Vectors(), kTileVectors); }
};

// Where the operands of one tile come from; packs them if the tile cannot do it on the way.
HWY_INLINE TileFunction PrepareTile(const Block& block, Tile& tile, size_t i, size_t row,
                                    size_t rows, size_t column, size_t columns, size_t width) {
  const size_t lanes = hn::Lanes(DF());
  const bool whole = rows == kTileRows;
  const bool along_k = block.panels_a.data == nullptr;
  bool copy_b = false;
  tile.a = along_k ? block.a + row * block.a_row : block.PanelA(i);
  tile.b = block.b_half == nullptr ? block.b + column * block.b_n : nullptr;
  tile.b_k = block.b_k;
  tile.last = columns % lanes;
  // The last panel is copied even where the others are not: its padding may be read.
  if (block.b_panels != nullptr || tile.last != 0) {
    float* panel = block.b_panels != nullptr ? block.b_panels + column * block.k : block.b_edge;
    const bool first = !block.b_ready && i == 0;
    copy_b = first && whole && block.b_n == 1 && tile.last == 0 && block.b_half == nullptr;
    tile.copy_b = panel;
    if (first && block.b_half != nullptr) {
      PackBPanel(block.b_half + column * block.b_n, block.b_k, block.b_n, columns, block.k, panel);
    } else if (first && !copy_b) {
      PackBPanel(tile.b, block.b_k, block.b_n, columns, block.k, panel);
    }
    if (!copy_b) {
      tile.b = panel;
      tile.b_k = width * lanes;
    }
  }
  if (copy_b) return SelectCopyingTile(along_k, width);
  return SelectTile<kFetchBlocked>(along_k, rows, width);
}

// What the tiles of the next row need of A, as long as it is not in this core's reach.
HWY_INLINE Ahead RowsBelow(const Block& block, const RowTiles& tiles, size_t i) {
  if (!block.fetch_a || i + 1 >= tiles.count) return {};
  const size_t row = tiles.Begin(i + 1);
  const size_t rows = tiles.Rows(i + 1);
  if (block.panels_a.data == nullptr) {
    return {block.a + row * block.a_row, block.a_row, rows, block.k};
  }
  if (!block.a_ready) return {};
  return {block.PanelA(i + 1), 0, 1, kTileRows * block.k};
}

// The panel of A of row i as it can be packed meanwhile: the rows lie side by side, a whole tile.
HWY_INLINE PackAhead PanelOfA(const Block& block, const RowTiles& tiles, size_t i) {
  if (block.panels_a.data == nullptr || block.a_ready) return {};
  if (block.a_row != 1 || tiles.Rows(i) != kTileRows) return {};
  PackAhead pack;
  pack.from = block.a + tiles.Begin(i);
  pack.a_k = block.a_k;
  pack.to = block.PanelA(i);
  pack.steps = block.k;
  pack.at_once = CeilDiv(4, block.TilesARow());
  pack.two_lines = kLineFloats % kTileRows != 0 || !AreAligned(pack.from, pack.a_k, kTileRows);
  return pack;
}

// Has the panel of row i ready, and begins with the next one.
HWY_INLINE void PackPanels(const Block& block, const RowTiles& tiles, size_t i, PackAhead& pack) {
  if (block.panels_a.data == nullptr) return;
  if (!block.a_ready && (block.a_row != 1 || tiles.Rows(i) != kTileRows)) {
    PackA(block.a + tiles.Begin(i) * block.a_row, block.a_row, block.a_k, tiles.Rows(i), block.k,
          block.PanelA(i));
  }
  pack.Copy(pack.steps);
  pack = i + 1 < tiles.count ? PanelOfA(block, tiles, i + 1) : block.next_a;
  pack.Begin();
}

// All tiles of a block; a panel of A stays in L1 while those of B stream past it from L2. `pack`
// holds what is left to do for the first panel of A, and then for that of the next block.
HWY_INLINE void RunBlock(Block& block, PackAhead& pack) {
  const size_t lanes = hn::Lanes(DF());
  const size_t vectors = block.Vectors();
  const RowTiles tiles(block.m);
  // The next block of B is fetched just before its use: earlier it would be gone again.
  // With few rows of tiles past it that takes two lines at a time.
  const bool twice = tiles.count <= 4 * kTileVectors;
  const size_t lines_a_tile =
      (std::max<size_t>(block.k / 4, 2 * kTileRows) - kTileRows) * (twice ? 2 : 1);
  const size_t tiles_for_b = block.next_b.Lines() / lines_a_tile * 5 / 4 + 2;
  size_t tiles_left = block.TilesARow() * tiles.count;
  Ahead nothing;
  Tile tile = {};
  tile.a_row = block.a_row;
  tile.c_row = block.c_row;
  tile.add_row = block.add_row;
  tile.k = block.k;
  tile.a_k = block.panels_a.data == nullptr ? block.a_k : kTileRows;
  tile.pack = &pack;
  tile.twice = twice;
  for (size_t i = 0; i < tiles.count; ++i) {
    const size_t row = tiles.Begin(i);
    const size_t rows = tiles.Rows(i);
    PackPanels(block, tiles, i, pack);
    Ahead rows_below = RowsBelow(block, tiles, i);
    for (size_t column = 0; column < block.n; --tiles_left) {
      const size_t width = PanelVectors(vectors - column / lanes);
      const size_t columns = std::min(width * lanes, block.n - column);
      tile.c = block.c + row * block.c_row + column;
      tile.add = block.add == nullptr ? nullptr : block.add + row * block.add_row + column;
      tile.ahead = !rows_below.Done()          ? &rows_below
                   : tiles_left <= tiles_for_b ? &block.next_b
                                               : &nothing;
      PrepareTile(block, tile, i, row, rows, column, columns, width)(tile);
      column += columns;
    }
  }
}

// One product over one range: its blocks in order (rows, then k, then columns), with what is
// packed.
class BlockedProduct {
 public:
  HWY_INLINE BlockedProduct(const MatmulArgs& args, const MatmulRange& range, void* scratch)
      : args_(args),
        range_(range),
        blocks_k_(args.k),
        pack_a_(args.a.col_stride != 1),
        n_step_(ColumnStep(range.n_end - range.n_begin, blocks_k_.size)),
        keep_a_(pack_a_ && n_step_ < range.n_end - range.n_begin),
        m_step_(keep_a_ ? RowStep(range.m_end - range.m_begin, blocks_k_.size)
                        : range.m_end - range.m_begin) {
    const size_t rows = std::min(m_step_, range.m_end - range.m_begin);
    panels_a_ = {AlignUp(scratch), PanelsOfA(keep_a_ ? rows : 1), kTileRows * blocks_k_.size};
    if (!pack_a_) panels_a_ = {};
    b_panels_ = AlignUp(pack_a_ ? panels_a_.data + panels_a_.count * panels_a_.floats : scratch);
  }

  // Bytes of scratch for any range of a product of this shape, whatever cache is set later.
  static size_t ScratchBytes(size_t m, size_t n, size_t k) {
    constexpr size_t kCache = kernels::matmul::kMostCacheBytes;
    const size_t size = BlocksK(k).size;
    const size_t lanes = hn::Lanes(DF());
    const size_t rows = std::min(BlockRows(size, kCache), CeilDiv(m, kTileRows) * kTileRows);
    const size_t columns = std::min(BlockColumns(size, kCache), CeilDiv(n, lanes) * lanes);
    const size_t a_floats = PanelsOfA(rows) * kTileRows * size;
    return (a_floats + columns * size) * sizeof(float) + 2 * 64;
  }

  void Run() {
    const Addend addend = EpilogueAddend(args_);
    Position at = {range_.m_begin, 0, range_.n_begin, 0};
    PackAhead pack = FirstPanel(at);
    while (at.m < range_.m_end) {
      const Position next = After(at);
      Block block = MakeBlock(at, at.k == 0 ? addend : Addend{args_.c, args_.c_stride});
      if (next.m < range_.m_end) {
        if (args_.n * args_.k > kResidentFloats) block.next_b = AheadB(next);
        block.next_a = FirstPanel(next);
      }
      RunBlock(block, pack);
      at = next;
    }
  }

 private:
  // A block by its first row, its number along k, and its first column; how many panels of A come
  // before its own.
  struct Position {
    size_t m, k, n, panel_a;
  };

  // For so many rows at a time: theirs, and one that is packed ahead.
  static size_t PanelsOfA(size_t rows) { return RowTiles(rows).count + 1; }

  // Near-equal blocks of rows and of columns, in whole tiles.
  static size_t RowStep(size_t m, size_t k) {
    const size_t count =
        std::max<size_t>(1, CeilDiv(m, BlockRows(k, kernels::matmul::CacheBytes())));
    return CeilDiv(CeilDiv(m, count), kTileRows) * kTileRows;
  }
  static size_t ColumnStep(size_t n, size_t k) {
    const size_t count =
        std::max<size_t>(1, CeilDiv(n, BlockColumns(k, kernels::matmul::CacheBytes())));
    return CeilDiv(CeilDiv(n, count), TileColumns()) * TileColumns();
  }
  size_t Rows(const Position& at) const { return std::min(m_step_, range_.m_end - at.m); }
  size_t Columns(const Position& at) const { return std::min(n_step_, range_.n_end - at.n); }
  size_t Steps(const Position& at) const {
    return std::min(blocks_k_.size, args_.k - at.k * blocks_k_.size);
  }
  Position After(Position at) const {
    at.n += Columns(at);
    if (at.n < range_.n_end) return at;
    at.n = range_.n_begin;
    at.panel_a += RowTiles(Rows(at)).count;
    if (++at.k < blocks_k_.count) return at;
    at.k = 0;
    at.m += m_step_;
    return at;
  }
  const float* A(const Position& at) const {
    return args_.a.data + at.m * args_.a.row_stride + at.k * blocks_k_.size * args_.a.col_stride;
  }
  size_t OffsetB(const Position& at) const {
    const MatmulOperand& b = args_.b.strided;
    return at.k * blocks_k_.size * b.row_stride + at.n * b.col_stride;
  }
  PackAhead FirstPanel(const Position& at) const {
    const Block block = MakeBlock(at, {});
    return PanelOfA(block, RowTiles(block.m), 0);
  }
  Ahead AheadB(const Position& at) const {
    const MatmulOperand& b = args_.b.strided;
    const bool rows = b.col_stride == 1;
    const size_t stride = rows ? b.row_stride : b.col_stride;
    const size_t count = rows ? Steps(at) : Columns(at);
    const size_t length = rows ? Columns(at) : b.row_stride == 1 ? Steps(at) : 0;
    if (args_.b.bf16 == nullptr) return {b.data + OffsetB(at), stride, count, length};
    // In floats; half a float more or less does not matter here.
    return {reinterpret_cast<const float*>(args_.b.bf16 + OffsetB(at)), stride / 2, count,
            length / 2};
  }

  HWY_INLINE Block MakeBlock(const Position& at, const Addend& add) const {
    Block block = {};
    block.m = Rows(at);
    block.n = Columns(at);
    block.k = Steps(at);
    block.a = A(at);
    block.a_row = args_.a.row_stride;
    block.a_k = args_.a.col_stride;
    block.panels_a = panels_a_;
    block.first_panel_a = at.panel_a;
    block.a_ready = at.n != range_.n_begin;
    block.fetch_a = args_.m * args_.k > kResidentFloats;
    block.b = args_.b.strided.data;
    block.b_half = args_.b.bf16;
    if (block.b_half == nullptr) {
      block.b += OffsetB(at);
    } else {
      block.b_half += OffsetB(at);
    }
    block.b_k = args_.b.strided.row_stride;
    block.b_n = args_.b.strided.col_stride;
    const bool compact = block.b_k * block.k <= CompactFloats();
    const bool in_place = block.b_half == nullptr && block.b_n == 1 &&
                          (compact || block.m <= (kTilesWorthPacking - 1) * kTileRows);
    block.b_panels = in_place ? nullptr : b_panels_;
    block.b_edge = b_panels_;
    block.c = args_.c + at.m * args_.c_stride + at.n;
    block.c_row = args_.c_stride;
    block.add = add.data == nullptr ? nullptr : add.data + at.m * add.stride + at.n;
    block.add_row = add.stride;
    return block;
  }

  const MatmulArgs& args_;
  const MatmulRange& range_;
  const BlocksK blocks_k_;
  const bool pack_a_;
  const size_t n_step_;
  const bool keep_a_;  // several blocks of columns meet the same panels
  const size_t m_step_;
  PanelRing panels_a_;
  float* b_panels_;
};

}  // namespace matmul
}  // namespace HWY_NAMESPACE
}  // namespace lanewise::kernels
HWY_AFTER_NAMESPACE();

#endif  // include guard

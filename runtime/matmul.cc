#include "runtime/matmul.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "runtime/machine.h"
#include "runtime/parallel.h"

namespace lanewise::runtime {
namespace {

using kernels::Bf16Unit;
using kernels::MatmulArgs;
using kernels::MatmulTile;

// Less work than this (two operations per multiply-add) does not pay for waking a thread.
constexpr double kWorthwhileFlops = 3e6;
// With few rows the work is to read the weights: each counts as so many operations. From memory it
// takes the time of 24; but decoding has one product right after the other, so that the other
// threads are awake, and 10 us of work for each of them pay.
constexpr double kReadFlops = 60;

// Roughly how much faster AMX is than float32.
constexpr double kAmxSpeed = 8;

size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

// How C is cut: a grid of near-equal ranges, columns in whole tiles.
struct Grid {
  size_t rows = 1;
  size_t columns = 1;
};

// Time of a product cut into a grid, in multiply-adds of one vector of columns by one row: the
// tiles, and what each range packs of B and A for itself. A row-major A is read where it lies, but
// converted for bf16; AMX computes so fast that packing counts more.
double CostOf(const MatmulArgs& args, const MatmulTile& tile, const Grid& grid, size_t workers,
              Bf16Unit unit) {
  const bool amx = unit == Bf16Unit::kAmx;
  const double pack_b = amx ? 24 : 3;
  const double read_a = unit == Bf16Unit::kDot ? 6 : 0.5;
  const double pack_a = amx ? 8 : args.a.col_stride == 1 ? read_a : 4;
  const auto rows = static_cast<double>(CeilDiv(CeilDiv(args.m, tile.rows), grid.rows) * tile.rows);
  const auto columns =
      static_cast<double>(CeilDiv(CeilDiv(args.n, tile.columns), grid.columns) * tile.columns);
  const double range = rows * columns + pack_b * columns + pack_a * rows;
  const auto turns = static_cast<double>(CeilDiv(grid.rows * grid.columns, workers));
  // With one range a worker, all wait for the slowest core.
  const double wait = turns == 1 ? 1.005 : 1.0;
  return range * turns * wait;
}

// The cheapest of the grids with one or two ranges a worker.
Grid ChooseGrid(const MatmulArgs& args, const MatmulTile& tile, size_t workers, Bf16Unit unit) {
  const bool amx = unit == Bf16Unit::kAmx;
  const double weights = static_cast<double>(args.n) * static_cast<double>(args.k);
  const double work = weights * std::max(2.0 * static_cast<double>(args.m), kReadFlops);
  const auto useful =
      static_cast<size_t>(work / (amx ? kAmxSpeed * kWorthwhileFlops : kWorthwhileFlops));
  workers = std::min(workers, useful);
  Grid best;
  if (workers < 2) return best;
  const size_t tiles_m = CeilDiv(args.m, tile.rows);
  const size_t tiles_n = CeilDiv(args.n, tile.columns);
  double best_cost = CostOf(args, tile, best, workers, unit);
  for (const size_t ranges : {workers, std::min(2 * workers, useful)}) {
    for (size_t rows = 1; rows <= std::min(ranges, tiles_m); ++rows) {
      const Grid grid{.rows = rows, .columns = std::min(ranges / rows, tiles_n)};
      const double cost = CostOf(args, tile, grid, workers, unit);
      if (cost >= best_cost) continue;
      best_cost = cost;
      best = grid;
    }
  }
  return best;
}

// Boundary i of `parts` near-equal parts of [0, size) in whole multiples of `unit`.
size_t Boundary(size_t i, size_t parts, size_t size, size_t unit) {
  const size_t units = CeilDiv(size, unit);
  return std::min(size, (i * units / parts) * unit);
}

// The system knows the cache also where kernels cannot ask the CPU for it. Who has set a size knows
// better.
void TellCache() {
  static const bool told [[maybe_unused]] = [] {
    if (kernels::MatmulCacheBytes() == 0) {
      kernels::SetMatmulCacheBytes(DescribeMachine().l2_bytes);
    }
    return true;
  }();
}

size_t ScratchPerWorker(size_t m, size_t n, size_t k, bool bf16) {
  TellCache();
  return CeilDiv(kernels::MatmulScratchBytes(m, n, k, bf16), 64) * 64;
}

}  // namespace

kernels::MatmulWeights AsWeights(const Tensor& w, bool transposed) {
  const size_t row = transposed ? 1 : w.stride;
  const size_t column = transposed ? w.stride : 1;
  if (!IsBf16(w)) return {.strided = {w.F32().data, row, column}};
  return {.strided = {nullptr, row, column}, .bf16 = w.BF16().data};
}

size_t MatmulScratchBytes(size_t m, size_t n, size_t k, size_t max_workers, bool bf16) {
  return ScratchPerWorker(m, n, k, bf16) * max_workers;
}

void Matmul(const Parallel& par, const MatmulArgs& args, std::span<std::byte> scratch) {
  const Bf16Unit unit = args.bf16 && args.m > kernels::kMatmulSkinnyRows ? kernels::MatmulBf16Unit()
                                                                         : Bf16Unit::kFloat32;
  const MatmulTile tile = kernels::MatmulTileSize(args.bf16);
  const Grid grid = ChooseGrid(args, tile, par.max_workers(), unit);
  if (grid.rows * grid.columns <= 1) {
    kernels::Matmul(args, scratch);
    return;
  }
  const size_t bytes = ScratchPerWorker(args.m, args.n, args.k, args.bf16);
  par.For(grid.rows * grid.columns, [&](size_t task, size_t worker) {
    const size_t i = task % grid.rows;
    const size_t j = task / grid.rows;
    const kernels::MatmulRange range = {Boundary(i, grid.rows, args.m, tile.rows),
                                        Boundary(i + 1, grid.rows, args.m, tile.rows),
                                        Boundary(j, grid.columns, args.n, tile.columns),
                                        Boundary(j + 1, grid.columns, args.n, tile.columns)};
    kernels::Matmul(args, range, scratch.subspan(worker * bytes, bytes));
  });
}

}  // namespace lanewise::runtime

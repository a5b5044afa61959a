#include "runtime/matmul.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "runtime/parallel.h"

namespace lanewise::runtime {
namespace {

using kernels::MatmulArgs;
using kernels::MatmulTile;

// Less work than this (two operations per multiply-add) does not pay for waking a thread.
constexpr double kWorthwhileFlops = 3e6;
// Operations that fit into the time of reading one weight from memory: with few rows that is the
// work.
constexpr double kReadFlops = 24;

// Roughly how much faster AMX is than float32.
constexpr double kAmxSpeed = 8;

size_t CeilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

// How C is cut: a grid of near-equal ranges, columns in whole tiles.
struct Grid {
  size_t rows = 1;
  size_t columns = 1;
};

// Columns first: then no two workers pack the same part of B. Rows as well where B is narrow. Tiles
// of AMX compute so fast that packing counts as much: one range a worker, along the longer side.
Grid ChooseGrid(const MatmulArgs& args, const MatmulTile& tile, size_t workers, bool amx) {
  const double weights = static_cast<double>(args.n) * static_cast<double>(args.k);
  const double work = weights * std::max(2.0 * static_cast<double>(args.m), kReadFlops);
  const auto useful =
      static_cast<size_t>(work / (amx ? kAmxSpeed * kWorthwhileFlops : kWorthwhileFlops));
  workers = std::min(workers, useful);
  if (workers < 2) return {};
  const size_t tiles_n = CeilDiv(args.n, tile.columns);
  const size_t tiles_m = CeilDiv(args.m, tile.rows);
  if (amx && args.m >= args.n) return {.rows = std::min(workers, tiles_m), .columns = 1};
  Grid grid;
  // Two ranges a worker even out cores of unequal speed, where each still has enough tiles.
  const size_t wanted = amx ? workers : std::min(2 * workers, useful);
  grid.columns = std::clamp<size_t>(tiles_n / 4, 1, wanted);
  grid.rows = std::clamp<size_t>(CeilDiv(wanted, grid.columns), 1, tiles_m);
  return grid;
}

// Boundary i of `parts` near-equal parts of [0, size) in whole multiples of `unit`.
size_t Boundary(size_t i, size_t parts, size_t size, size_t unit) {
  const size_t units = CeilDiv(size, unit);
  return std::min(size, (i * units / parts) * unit);
}

size_t ScratchPerWorker(size_t m, size_t n, size_t k, bool bf16) {
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
  const bool amx = args.bf16 && args.m > kernels::kMatmulSkinnyRows &&
                   kernels::MatmulBf16Unit() == kernels::Bf16Unit::kAmx;
  const MatmulTile tile = kernels::MatmulTileSize(args.bf16);
  const Grid grid = ChooseGrid(args, tile, par.max_workers(), amx);
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

// How the WKV operation cuts its work into sequences, blocks of channels and chunks of time, by
// shape alone.
#ifndef LANEWISE_RUNTIME_OPS_WKV_PIECES_H_
#define LANEWISE_RUNTIME_OPS_WKV_PIECES_H_

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/wkv.h"
#include "runtime/parallel.h"
#include "runtime/partition.h"
#include "runtime/tensor.h"

namespace lanewise::runtime {

// Inputs of both passes, in this order.
struct WkvInput {
  enum Index : size_t { kR, kK, kV, kD, kGates, kBase, kFirst, kScale, kLengths, kCount };
};

struct WkvSizes {
  size_t sequences, steps, channels, slots, blocks;
  size_t chunks, chunk;  // chunk: steps of all chunks but the last

  // Cutting time costs a further pass over the inputs, so it is done only where sequences and
  // blocks of channels are few, and never into chunks that are not worth a task.
  WkvSizes(std::span<const Tensor> in, size_t sequences_in)
      : sequences(sequences_in),
        steps(in[WkvInput::kR].rows / sequences_in),
        channels(in[WkvInput::kR].cols),
        slots(in[WkvInput::kGates].cols / 2),
        blocks((channels + kernels::kWkvBlock - 1) / kernels::kWkvBlock) {
    constexpr size_t kEnoughTasks = 16;
    constexpr size_t kShortestChunk = 256;
    const size_t wanted = (kEnoughTasks + sequences * blocks - 1) / (sequences * blocks);
    const size_t most = std::clamp<size_t>(steps / kShortestChunk, 1, wanted);
    chunk = (kernels::WkvCheckpoints(steps) + most - 1) / most * kernels::kWkvSegment;
    chunks = (steps + chunk - 1) / chunk;
  }

  size_t state_rows() const { return 2 * slots; }
  size_t saved_rows() const { return kernels::WkvCheckpoints(steps) * state_rows(); }
  size_t ChunkSteps(size_t c) const { return std::min(chunk, steps - c * chunk); }
};

// Some channels of one chunk of one sequence.
struct WkvPiece {
  size_t sequence, chunk, col, cols;
};

// Calls fn(piece, worker) for chunks [first_chunk, first_chunk + chunks) of every block of channels
// of every sequence, several pieces in one task where they are small.
template <typename Fn>
void ForWkvPieces(const Parallel& parallel, const WkvSizes& s, size_t first_chunk, size_t chunks,
                  const Fn& fn) {
  constexpr size_t kWorthATask = 4096;  // steps times slots of one block
  const size_t pieces = s.sequences * chunks * s.blocks;
  const size_t work = std::min(s.chunk, s.steps) * (s.slots + 8);
  const size_t group = (kWorthATask + work - 1) / work;
  const Pieces tasks{pieces, (pieces + group - 1) / group};
  parallel.For(tasks.count, [&](size_t task, size_t worker) {
    for (size_t i = tasks.Begin(task); i < tasks.Begin(task + 1); ++i) {
      const size_t col = i % s.blocks * kernels::kWkvBlock;
      fn(WkvPiece{.sequence = i / (chunks * s.blocks),
                  .chunk = first_chunk + i / s.blocks % chunks,
                  .col = col,
                  .cols = std::min(kernels::kWkvBlock, s.channels - col)},
         worker);
    }
  });
}

// Slices of a node's tensors. `in` begins with the inputs in WkvInput's order.
struct WkvSlicer {
  const WkvSizes& s;
  std::span<const Tensor> in;

  // The piece's steps of a matrix [N, any].
  Mat<float> Steps(Mat<float> m, const WkvPiece& p) const {
    return m.Rows(p.sequence * s.steps + p.chunk * s.chunk, s.ChunkSteps(p.chunk));
  }
  // The piece's part of a matrix [N, E].
  Mat<float> Data(const Tensor& t, const WkvPiece& p) const {
    return Steps(t.F32(), p).Cols(p.col, p.cols);
  }
  // Rows [index * rows, (index + 1) * rows), or nothing of nothing.
  Mat<float> Rows(Mat<float> m, size_t index, size_t rows, const WkvPiece& p) const {
    return m.data == nullptr ? m : m.Rows(index * rows, rows).Cols(p.col, p.cols);
  }
  std::span<float> Row(Mat<float> m, size_t row, const WkvPiece& p) const {
    return {m.Row(row) + p.col, p.cols};
  }
  // Valid steps of the piece.
  size_t Length(const WkvPiece& p) const {
    size_t length = s.steps;
    if (in[WkvInput::kLengths]) {
      const int32_t given = in[WkvInput::kLengths].Ints()[p.sequence];
      length = std::min(length, static_cast<size_t>(std::max(given, 0)));
    }
    const size_t start = p.chunk * s.chunk;
    return length <= start ? 0 : std::min(length - start, s.ChunkSteps(p.chunk));
  }
  kernels::WkvInputs Inputs(const WkvPiece& p) const {
    const Mat<float> gates = Steps(in[WkvInput::kGates].F32(), p);
    const auto vector = [&](size_t i) { return in[i].Flat().subspan(p.col, p.cols); };
    return {.r = Data(in[WkvInput::kR], p),
            .k = Data(in[WkvInput::kK], p),
            .v = Data(in[WkvInput::kV], p),
            .d = Data(in[WkvInput::kD], p),
            .write = gates.Cols(0, s.slots),
            .read = gates.Cols(s.slots, s.slots),
            .decay_base = vector(WkvInput::kBase),
            .time_first = vector(WkvInput::kFirst),
            .decay_scale = vector(WkvInput::kScale)};
  }
  // saved: offset, inv_den, states.
  kernels::WkvSave<float> Saved(std::span<const Tensor> saved, const WkvPiece& p) const {
    const size_t first = p.chunk * s.chunk / kernels::kWkvSegment * s.state_rows();
    const size_t rows = kernels::WkvCheckpoints(s.ChunkSteps(p.chunk)) * s.state_rows();
    const Mat<float> states = saved[2].F32().Rows(p.sequence * s.saved_rows() + first, rows);
    return {Data(saved[0], p), Data(saved[1], p), states.Cols(p.col, p.cols)};
  }
};

// What the chunk-parallel form keeps between its passes, for each chunk of each sequence.
struct WkvChunkMemory {
  Mat<float> decay;  // [sequences * chunks, E]
  Mat<float> local;  // [sequences * chunks * 2S, E]
  Mat<float>
      border;  // [sequences * chunks * 2S, E]: state before, or its gradient after, each chunk

  static size_t Floats(const WkvSizes& s) {
    return s.chunks == 1 ? 0 : s.sequences * s.chunks * s.channels * (1 + 2 * s.state_rows());
  }
  WkvChunkMemory(const WkvSizes& s, float* memory) {
    if (s.chunks == 1) return;
    const size_t count = s.sequences * s.chunks;
    const size_t rows = count * s.state_rows();
    decay = {memory, count, s.channels, s.channels};
    local = {memory + count * s.channels, rows, s.channels, s.channels};
    border = {local.data + rows * s.channels, rows, s.channels, s.channels};
  }
};

}  // namespace lanewise::runtime

#endif  // LANEWISE_RUNTIME_OPS_WKV_PIECES_H_

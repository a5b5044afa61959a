#include "runtime/ops/wkv.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/reduce.h"
#include "kernels/wkv.h"
#include "runtime/check.h"
#include "runtime/ops/wkv_pieces.h"

namespace lanewise::runtime {

namespace {

// Gate gradients of the blocks of channels but the first, whose sums go straight to their place.
struct GatePartials {
  float* memory;
  size_t rows, cols;

  static size_t Floats(const WkvSizes& s, size_t workers) {
    return workers == 1 ? 0 : (s.blocks - 1) * s.sequences * s.steps * s.state_rows();
  }
  Mat<float> Block(Mat<float> total, size_t block) const {
    if (block == 0) return total;
    return {memory + (block - 1) * rows * cols, rows, cols, cols};
  }
  void Add(const Parallel& parallel, Mat<float> total, size_t blocks) const {
    if (blocks == 1) return;
    const Pieces parts = CutRows(rows, cols * blocks);
    parallel.For(parts.count, [&](size_t part, size_t) {
      for (size_t r = parts.Begin(part); r < parts.Begin(part + 1); ++r) {
        for (size_t b = 1; b < blocks; ++b) {
          const float* const from = Block(total, b).Row(r);
          for (size_t c = 0; c < cols; ++c) total.Row(r)[c] += from[c];
        }
      }
    });
  }
};

// in: WkvInput's, offset, inv_den, states, dry. out: dr, dk, dv, dd, d gates, d decay_base or none,
// d time_first or none.
class WkvBackwardOp final : public Op {
 public:
  explicit WkvBackwardOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "wkv backward"; }
  bool OptionalInput(size_t input) const override { return input == WkvInput::kLengths; }
  int InPlaceInput(size_t output) const override {
    return output < 4 ? static_cast<int>(output) : -1;
  }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t workers) const override {
    const WkvSizes s(in, sequences_);
    return sizeof(float) * (ScratchFloats(s) * workers + SumFloats(s) + WkvChunkMemory::Floats(s) +
                            GatePartials::Floats(s, workers));
  }

  void Run(const OpArgs& args) const override {
    const WkvSizes s(args.in, sequences_);
    auto* memory = reinterpret_cast<float*>(args.workspace.data());
    const auto take = [&](size_t floats) {
      float* const place = memory;
      memory += floats;
      return place;
    };
    const size_t workers = args.parallel.max_workers();
    const size_t pieces = s.sequences * s.chunks;
    const Call call{.s = s,
                    .slicer = {s, args.in},
                    .args = args,
                    .scratch = take(ScratchFloats(s) * workers),
                    .sums = {take(SumFloats(s)), 2 * pieces, s.channels, s.channels},
                    .chunks = WkvChunkMemory(s, take(WkvChunkMemory::Floats(s)))};
    kernels::Fill(0.0F, {call.sums.data, SumFloats(s)});
    if (s.chunks > 1) Borders(call);
    Main(call,
         {take(GatePartials::Floats(s, workers)), args.in[WkvInput::kR].rows, s.state_rows()});
    if (args.out[5]) kernels::AddRows(call.sums.Rows(0, pieces), args.out[5].Flat());
    if (args.out[6]) kernels::AddRows(call.sums.Rows(pieces, pieces), args.out[6].Flat());
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    const WkvSizes s(in, sequences_);
    cost.flops =
        static_cast<double>(in[0].rows * s.channels) * (24.0 * static_cast<double>(s.slots) + 100);
    return cost;
  }

 private:
  struct Call {
    const WkvSizes& s;
    WkvSlicer slicer;
    const OpArgs& args;
    float* scratch;
    Mat<float> sums;  // decay_base by sequence and chunk, then time_first
    WkvChunkMemory chunks;

    std::span<const Tensor> saved() const { return args.in.subspan(WkvInput::kCount, 3); }
    const Tensor& dry() const { return args.in[WkvInput::kCount + 3]; }
  };

  // Whole cache lines, so that workers do not share one.
  static size_t ScratchFloats(const WkvSizes& s) {
    return (kernels::WkvBackwardScratch(s.slots) + 15) / 16 * 16;
  }
  static size_t SumFloats(const WkvSizes& s) { return 2 * s.sequences * s.chunks * s.channels; }

  // The gradient of the state after each chunk but the last.
  static void Borders(const Call& call) {
    const WkvSizes& s = call.s;
    const WkvSlicer& slicer = call.slicer;
    const WkvChunkMemory& m = call.chunks;
    const size_t rows = s.state_rows();
    ForWkvPieces(call.args.parallel, s, 1, s.chunks - 1, [&](const WkvPiece& p, size_t) {
      const size_t index = p.sequence * s.chunks + p.chunk;
      kernels::WkvChunkBackward(slicer.Inputs(p), slicer.Length(p), slicer.Saved(call.saved(), p),
                                slicer.Data(call.dry(), p), slicer.Row(m.decay, index, p),
                                slicer.Rows(m.local, index, rows, p));
    });
    ForWkvPieces(call.args.parallel, s, 0, 1, [&](const WkvPiece& p, size_t) {
      for (size_t c = s.chunks - 1; c-- > 0;) {
        const size_t index = p.sequence * s.chunks + c;
        Mat<const float> after;
        if (c + 2 < s.chunks) after = slicer.Rows(m.border, index + 1, rows, p);
        kernels::WkvCarry(slicer.Row(m.decay, index + 1, p),
                          slicer.Rows(m.local, index + 1, rows, p), after,
                          slicer.Rows(m.border, index, rows, p));
      }
    });
  }

  static void Main(const Call& call, const GatePartials& partials) {
    const WkvSizes& s = call.s;
    const Mat<float> dgates = call.args.out[4].F32();
    // One worker adds the blocks of channels in place, in the same order: the bits are the same.
    if (call.args.parallel.max_workers() == 1) {
      for (size_t i = 0; i < s.sequences * s.chunks; ++i) {
        Backward(call, {i / s.chunks, i % s.chunks, 0, s.channels}, dgates, 0);
      }
      return;
    }
    ForWkvPieces(call.args.parallel, s, 0, s.chunks, [&](const WkvPiece& p, size_t worker) {
      Backward(call, p, partials.Block(dgates, p.col / kernels::kWkvBlock), worker);
    });
    partials.Add(call.args.parallel, dgates, s.blocks);
  }

  static void Backward(const Call& call, const WkvPiece& p, Mat<float> dgates, size_t worker) {
    const WkvSizes& s = call.s;
    const WkvSlicer& slicer = call.slicer;
    const size_t index = p.sequence * s.chunks + p.chunk;
    const Mat<float> gates = slicer.Steps(dgates, p);
    const kernels::WkvGradients out = {
        .r = slicer.Data(call.args.out[0], p),
        .k = slicer.Data(call.args.out[1], p),
        .v = slicer.Data(call.args.out[2], p),
        .d = slicer.Data(call.args.out[3], p),
        .write = gates.Cols(0, s.slots),
        .read = gates.Cols(s.slots, s.slots),
        .decay_base = slicer.Row(call.sums, index, p),
        .time_first = slicer.Row(call.sums, s.sequences * s.chunks + index, p),
        .state = {}};
    kernels::WkvEnd end;
    WkvPiece next = p;
    ++next.chunk;
    // Chunks beyond the sequence's length have no states; nothing depends on them.
    if (next.chunk < s.chunks && slicer.Length(next) > 0) {
      const Mat<float> states = slicer.Saved(call.saved(), next).states;
      end = {slicer.Rows(call.chunks.border, index, s.state_rows(), p),
             states.Rows(0, s.state_rows())};
    }
    kernels::WkvBackward(slicer.Inputs(p), slicer.Length(p), slicer.Saved(call.saved(), p), end,
                         slicer.Data(call.dry(), p), out,
                         {call.scratch + worker * ScratchFloats(s), ScratchFloats(s)});
  }

  size_t sequences_;
};

// in: WkvInput's, state_in or none. out: ry, state_out or none; when gradients follow also offset,
// inv_den, states.
class WkvOp final : public Op {
 public:
  explicit WkvOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "wkv"; }
  bool OptionalInput(size_t input) const override {
    return input == WkvInput::kLengths || input == WkvInput::kCount;
  }
  bool OptionalOutput(size_t output) const override { return output == 1; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t) const override {
    return sizeof(float) * WkvChunkMemory::Floats(WkvSizes(in, sequences_));
  }

  void Run(const OpArgs& args) const override {
    const WkvSizes s(args.in, sequences_);
    const WkvSlicer slicer{s, args.in};
    const WkvChunkMemory memory(s, reinterpret_cast<float*>(args.workspace.data()));
    if (s.chunks > 1) Borders(args, slicer, memory);
    const Mat<float> state_in = args.in[WkvInput::kCount].F32();
    const Mat<float> state_out = args.out[1].F32();
    const size_t rows = s.state_rows();
    ForWkvPieces(args.parallel, s, 0, s.chunks, [&](const WkvPiece& p, size_t) {
      const Mat<float> start =
          s.chunks > 1 ? slicer.Rows(memory.border, p.sequence * s.chunks + p.chunk, rows, p)
                       : slicer.Rows(state_in, p.sequence, rows, p);
      const bool last = p.chunk + 1 == s.chunks;
      kernels::WkvForward(
          slicer.Inputs(p), slicer.Length(p), start, slicer.Data(args.out[0], p),
          last ? slicer.Rows(state_out, p.sequence, rows, p) : Mat<float>{},
          args.out.size() > 2 ? slicer.Saved(args.out.subspan(2), p) : kernels::WkvSave<float>{});
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dry = builder.Grad(node.outputs[0]);
    if (!dry) return;
    Graph& graph = builder.graph();
    std::vector<Tensor> shapes;
    for (const TensorId id : node.inputs) shapes.push_back(graph.Shape(id));
    const WkvSizes s(shapes, sequences_);
    const size_t rows = s.sequences * s.steps;
    const TensorId offset = graph.Activation("wkv offset", rows, s.channels);
    const TensorId inv_den = graph.Activation("wkv 1/denominator", rows, s.channels);
    const TensorId states =
        graph.Activation("wkv states", s.sequences * s.saved_rows(), s.channels);
    builder.ReplaceNode(std::make_shared<WkvOp>(sequences_), node.inputs,
                        {node.outputs[0], node.outputs[1], offset, inv_den, states});
    std::vector<TensorId> in(node.inputs.begin(), node.inputs.begin() + WkvInput::kCount);
    in.insert(in.end(), {offset, inv_den, states, dry});
    std::vector<TensorId> out;
    for (size_t i = 0; i <= WkvInput::kGates; ++i) {
      out.push_back(builder.GradOverwrite(node.inputs[i]));
    }
    const std::vector<TensorId> gradients = out;
    out.push_back(builder.ParameterGrad(node.inputs[WkvInput::kBase]));
    out.push_back(builder.ParameterGrad(node.inputs[WkvInput::kFirst]));
    builder.Add(std::make_shared<WkvBackwardOp>(sequences_), std::move(in), std::move(out));
    for (size_t i = 0; i < gradients.size(); ++i) builder.FinishGrad(node.inputs[i], gradients[i]);
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    const WkvSizes s(in, sequences_);
    cost.flops =
        static_cast<double>(in[0].rows * s.channels) * (10.0 * static_cast<double>(s.slots) + 60);
    return cost;
  }

 private:
  // The state before each chunk.
  static void Borders(const OpArgs& args, const WkvSlicer& slicer, const WkvChunkMemory& m) {
    const WkvSizes& s = slicer.s;
    const size_t rows = s.state_rows();
    ForWkvPieces(args.parallel, s, 0, s.chunks - 1, [&](const WkvPiece& p, size_t) {
      const size_t index = p.sequence * s.chunks + p.chunk;
      kernels::WkvChunk(slicer.Inputs(p), slicer.Length(p), slicer.Row(m.decay, index, p),
                        slicer.Rows(m.local, index, rows, p));
    });
    const Mat<float> state_in = args.in[WkvInput::kCount].F32();
    ForWkvPieces(args.parallel, s, 0, 1, [&](const WkvPiece& p, size_t) {
      const size_t first = p.sequence * s.chunks;
      for (size_t row = 0; row < rows; ++row) {
        const std::span<float> to = slicer.Row(m.border, first * rows + row, p);
        if (state_in.data == nullptr) {
          std::fill(to.begin(), to.end(), 0.0F);
        } else {
          std::copy_n(slicer.Row(state_in, p.sequence * rows + row, p).data(), p.cols, to.data());
        }
      }
      for (size_t index = first; index + 1 < first + s.chunks; ++index) {
        kernels::WkvCarry(slicer.Row(m.decay, index, p), slicer.Rows(m.local, index, rows, p),
                          slicer.Rows(m.border, index, rows, p),
                          slicer.Rows(m.border, index + 1, rows, p));
      }
    });
  }

  size_t sequences_;
};

void CheckShape(const Graph& graph, TensorId id, const char* what, size_t rows, size_t cols) {
  const TensorInfo& info = graph.Info(id);
  LW_CHECK(info.rows == rows && info.cols == cols, "wkv: ", what, " is [", info.rows, ", ",
           info.cols, "], wanted [", rows, ", ", cols, "]");
}

}  // namespace

TensorId Wkv(Graph& graph, const WkvArgs& args) {
  const TensorInfo r = graph.Info(args.r);
  LW_CHECK(args.sequences > 0 && r.rows % args.sequences == 0, "wkv: ", r.rows, " rows are not ",
           args.sequences, " equal sequences");
  const size_t columns = graph.Info(args.gates).cols;
  LW_CHECK(columns % 2 == 0 && columns <= 2 * kernels::kWkvMaxSlots, "wkv: gates have ", columns,
           " columns; wanted twice the number of slots, 1 to ", kernels::kWkvMaxSlots);
  CheckShape(graph, args.k, "k", r.rows, r.cols);
  CheckShape(graph, args.v, "v", r.rows, r.cols);
  CheckShape(graph, args.d, "d", r.rows, r.cols);
  CheckShape(graph, args.gates, "gates", r.rows, columns);
  CheckShape(graph, args.decay_base, "decay_base", 1, r.cols);
  CheckShape(graph, args.time_first, "time_first", 1, r.cols);
  CheckShape(graph, args.decay_scale, "decay_scale", 1, r.cols);
  if (args.lengths) CheckShape(graph, args.lengths, "lengths", args.sequences, 1);
  graph.CheckType("wkv", args.lengths, DType::kInt32);
  const size_t state_rows = args.sequences * columns;
  if (args.state_in) CheckShape(graph, args.state_in, "state_in", state_rows, r.cols);
  if (args.state_out) CheckShape(graph, args.state_out, "state_out", state_rows, r.cols);
  const TensorId ry = graph.Activation("wkv", r.rows, r.cols);
  graph.Add(std::make_shared<WkvOp>(args.sequences),
            {args.r, args.k, args.v, args.d, args.gates, args.decay_base, args.time_first,
             args.decay_scale, args.lengths, args.state_in},
            {ry, args.state_out});
  return ry;
}

}  // namespace lanewise::runtime

#include "runtime/ops/token_shift.h"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/token_shift.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

using kernels::kTokenShiftCarriedRows;
using kernels::kTokenShiftSums;
using kernels::TokenShiftParams;

// Sequences, each cut into blocks of rows by shape alone.
struct Sizes {
  size_t sequences, steps, channels;
  Pieces blocks;

  // With partial sums the blocks are larger: each has a row of them for every parameter.
  Sizes(const Tensor& n, size_t sequences_in, bool sums)
      : sequences(sequences_in), steps(n.rows / sequences_in), channels(n.cols) {
    blocks =
        sums ? CutRows(steps, channels, size_t{1} << 16, /*most=*/32) : CutRows(steps, channels);
    // A block's sum is a chain of single-precision additions: not too long a one.
    constexpr size_t kMostRows = 512;
    if (sums) blocks.count = std::max(blocks.count, (steps + kMostRows - 1) / kMostRows);
  }

  template <typename Fn>
  void ForBlocks(const Parallel& parallel, const Fn& fn) const {
    parallel.For(sequences * blocks.count, [&](size_t task, size_t) {
      const size_t block = task % blocks.count;
      fn(task / blocks.count, task, blocks.Begin(block), blocks.Begin(block + 1));
    });
  }
  Mat<float> Sequence(Mat<float> m, size_t sequence) const {
    return m.data == nullptr ? m : m.Rows(sequence * steps, steps);
  }
  Mat<float> Carried(const Tensor& t, size_t sequence, size_t rows) const {
    return t ? t.F32().Rows(sequence * rows, rows) : Mat<float>{};
  }
  // Workspace of `sums` rows for each block.
  size_t SumBytes(size_t sums) const {
    return sequences * blocks.count * sums * channels * sizeof(float);
  }
  Mat<float> Sums(std::span<std::byte> workspace, size_t sums) const {
    return {reinterpret_cast<float*>(workspace.data()), sequences * blocks.count * sums, channels,
            channels};
  }
  void CarryOut(const Tensor& n, const Tensor& lengths, const Tensor& in, const Tensor& out,
                size_t rows) const {
    if (!out) return;
    for (size_t q = 0; q < sequences; ++q) {
      size_t length = steps;
      if (lengths) length = std::min(steps, static_cast<size_t>(std::max(0, lengths.Ints()[q])));
      kernels::ShiftCarry(Sequence(n.F32(), q), length, Carried(in, q, rows),
                          Carried(out, q, rows));
    }
  }
};

TokenShiftParams<const float> Params(std::span<const Tensor> six) {
  return {six[0].Flat(), six[1].Flat(), six[2].Flat(), six[3].Flat(), six[4].Flat(), six[5].Flat()};
}

// in: n, six parameters, carried_in or none, dxr, dxk, dxv, residual or none. out: dn, six
// gradients; all six or none.
class TokenShiftBackwardOp final : public Op {
 public:
  explicit TokenShiftBackwardOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "token_shift backward"; }
  bool OptionalInput(size_t input) const override { return input == 7; }
  int InPlaceInput(size_t output) const override { return output == 0 ? 11 : -1; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t) const override {
    return Sizes(in[0], sequences_, true).SumBytes(kTokenShiftSums);
  }

  void Run(const OpArgs& args) const override {
    const Sizes s(args.in[0], sequences_, true);
    const Mat<float> sums = s.Sums(args.workspace, kTokenShiftSums);
    const TokenShiftParams<const float> params = Params(args.in.subspan(1, 6));
    s.ForBlocks(args.parallel, [&](size_t q, size_t block, size_t t0, size_t t1) {
      const auto rows = [&](const Tensor& t) { return s.Sequence(t.F32(), q); };
      kernels::TokenShiftBackward(
          rows(args.in[0]), s.Carried(args.in[7], q, kTokenShiftCarriedRows), params,
          rows(args.in[8]), rows(args.in[9]), rows(args.in[10]), t0, t1, rows(args.in[11]),
          rows(args.out[0]), sums.Rows(block * kTokenShiftSums, kTokenShiftSums));
    });
    if (!args.out[1]) return;
    kernels::TokenShiftParamGradients(params, sums,
                                      {args.out[1].Flat(), args.out[2].Flat(), args.out[3].Flat(),
                                       args.out[4].Flat(), args.out[5].Flat(), args.out[6].Flat()});
  }

 private:
  size_t sequences_;
};

// in: n, six parameters, carried_in or none, lengths or none. out: xr, xk, xv, carried_out or none.
class TokenShiftOp final : public Op {
 public:
  explicit TokenShiftOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "token_shift"; }
  bool OptionalInput(size_t input) const override { return input == 7 || input == 8; }
  bool OptionalOutput(size_t output) const override { return output == 3; }

  void Run(const OpArgs& args) const override {
    const Sizes s(args.in[0], sequences_, false);
    const TokenShiftParams<const float> params = Params(args.in.subspan(1, 6));
    s.ForBlocks(args.parallel, [&](size_t q, size_t, size_t t0, size_t t1) {
      const auto rows = [&](const Tensor& t) { return s.Sequence(t.F32(), q); };
      kernels::TokenShiftForward(rows(args.in[0]), s.Carried(args.in[7], q, kTokenShiftCarriedRows),
                                 params, t0, t1, rows(args.out[0]), rows(args.out[1]),
                                 rows(args.out[2]));
    });
    // Last: the rows may be replaced in place.
    s.CarryOut(args.in[0], args.in[8], args.in[7], args.out[3], kTokenShiftCarriedRows);
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    std::vector<TensorId> dx;
    for (size_t i = 0; i < 3; ++i) dx.push_back(builder.Grad(node.outputs[i]));
    if (!dx[0] && !dx[1] && !dx[2]) return;
    LW_CHECK(dx[0] && dx[1] && dx[2], "token_shift: one of its outputs has no gradient");
    const auto [dn, residual] = builder.GradTarget(node.inputs[0]);
    std::vector<TensorId> in(node.inputs.begin(), node.inputs.begin() + 8);
    in.insert(in.end(), {dx[0], dx[1], dx[2], residual});
    std::vector<TensorId> out = {dn};
    for (size_t i = 1; i <= 6; ++i) {
      const TensorId gradient = builder.ParameterGrad(node.inputs[i]);
      LW_CHECK(i == 1 || static_cast<bool>(gradient) == static_cast<bool>(out[1]),
               "token_shift: its parameters are frozen together or not at all");
      out.push_back(gradient);
    }
    builder.Add(std::make_shared<TokenShiftBackwardOp>(sequences_), std::move(in), std::move(out));
  }

 private:
  size_t sequences_;
};

// in: n, mix, carried_in or none, dx, residual or none. out: dn, d mix or none.
class ChannelShiftBackwardOp final : public Op {
 public:
  explicit ChannelShiftBackwardOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "channel_shift backward"; }
  bool OptionalInput(size_t input) const override { return input == 2; }
  int InPlaceInput(size_t output) const override { return output == 0 ? 4 : -1; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t) const override {
    return Sizes(in[0], sequences_, true).SumBytes(1);
  }

  void Run(const OpArgs& args) const override {
    const Sizes s(args.in[0], sequences_, true);
    const Mat<float> sums = s.Sums(args.workspace, 1);
    s.ForBlocks(args.parallel, [&](size_t q, size_t block, size_t t0, size_t t1) {
      const auto rows = [&](const Tensor& t) { return s.Sequence(t.F32(), q); };
      kernels::ChannelShiftBackward(rows(args.in[0]), s.Carried(args.in[2], q, 1),
                                    args.in[1].Flat(), rows(args.in[3]), t0, t1, rows(args.in[4]),
                                    rows(args.out[0]), sums.Rows(block, 1));
    });
    if (args.out[1]) {
      kernels::ChannelShiftParamGradients(args.in[1].Flat(), sums, args.out[1].Flat());
    }
  }

 private:
  size_t sequences_;
};

// in: n, mix, carried_in or none, lengths or none. out: x, carried_out or none.
class ChannelShiftOp final : public Op {
 public:
  explicit ChannelShiftOp(size_t sequences) : sequences_(sequences) {}
  std::string_view name() const override { return "channel_shift"; }
  bool OptionalInput(size_t input) const override { return input == 2 || input == 3; }
  bool OptionalOutput(size_t output) const override { return output == 1; }

  void Run(const OpArgs& args) const override {
    const Sizes s(args.in[0], sequences_, false);
    s.ForBlocks(args.parallel, [&](size_t q, size_t, size_t t0, size_t t1) {
      kernels::ChannelShiftForward(s.Sequence(args.in[0].F32(), q), s.Carried(args.in[2], q, 1),
                                   args.in[1].Flat(), t0, t1, s.Sequence(args.out[0].F32(), q));
    });
    s.CarryOut(args.in[0], args.in[3], args.in[2], args.out[1], 1);
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dx = builder.Grad(node.outputs[0]);
    if (!dx) return;
    const auto [dn, residual] = builder.GradTarget(node.inputs[0]);
    builder.Add(std::make_shared<ChannelShiftBackwardOp>(sequences_),
                {node.inputs[0], node.inputs[1], node.inputs[2], dx, residual},
                {dn, builder.ParameterGrad(node.inputs[1])});
  }

 private:
  size_t sequences_;
};

// Everything but the parameters, whose shapes are [1, E].
struct Common {
  const char* op;
  TensorId n, lengths, carried_in, carried_out;
  size_t sequences, carried_rows;
};

void CheckShapes(const Graph& graph, const Common& a, std::initializer_list<TensorId> params) {
  const TensorInfo& n = graph.Info(a.n);
  LW_CHECK(a.sequences > 0 && n.rows % a.sequences == 0, a.op, ": ", n.rows, " rows are not ",
           a.sequences, " equal sequences");
  const auto check = [&](TensorId id, size_t rows, size_t cols) {
    if (!id) return;
    const TensorInfo& info = graph.Info(id);
    LW_CHECK(info.rows == rows && info.cols == cols, a.op, ": ", info.name, " is [", info.rows,
             ", ", info.cols, "], wanted [", rows, ", ", cols, "]");
  };
  for (const TensorId p : params) check(p, 1, n.cols);
  check(a.lengths, a.sequences, 1);
  graph.CheckType(a.op, a.n);
  graph.CheckType(a.op, a.lengths, DType::kInt32);
  check(a.carried_in, a.sequences * a.carried_rows, n.cols);
  check(a.carried_out, a.sequences * a.carried_rows, n.cols);
}

}  // namespace

TokenShiftOutputs TokenShift(Graph& graph, const TokenShiftArgs& args) {
  CheckShapes(graph,
              {"token_shift", args.n, args.lengths, args.carried_in, args.carried_out,
               args.sequences, kTokenShiftCarriedRows},
              {args.w1, args.w2, args.w4, args.mix_r, args.mix_k, args.mix_v});
  const TensorInfo n = graph.Info(args.n);
  const TokenShiftOutputs out = {graph.Activation("token_shift r", n.rows, n.cols),
                                 graph.Activation("token_shift k", n.rows, n.cols),
                                 graph.Activation("token_shift v", n.rows, n.cols)};
  graph.Add(std::make_shared<TokenShiftOp>(args.sequences),
            {args.n, args.w1, args.w2, args.w4, args.mix_r, args.mix_k, args.mix_v, args.carried_in,
             args.lengths},
            {out.r, out.k, out.v, args.carried_out});
  return out;
}

TensorId ChannelShift(Graph& graph, const ChannelShiftArgs& args) {
  CheckShapes(
      graph,
      {"channel_shift", args.n, args.lengths, args.carried_in, args.carried_out, args.sequences, 1},
      {args.mix});
  const TensorInfo n = graph.Info(args.n);
  const TensorId x = graph.Activation("channel_shift", n.rows, n.cols);
  graph.Add(std::make_shared<ChannelShiftOp>(args.sequences),
            {args.n, args.mix, args.carried_in, args.lengths}, {x, args.carried_out});
  return x;
}

}  // namespace lanewise::runtime

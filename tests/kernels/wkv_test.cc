#include "kernels/wkv.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/reference/wkv.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using reference::WkvOutputs;
using reference::WkvValues;
using testing::ForEachTarget;
using testing::RelativeL2Error;

// A matrix that starts at an odd address, with NaN between its rows and nothing after the last one.
class Matrix {
 public:
  Matrix(size_t rows, size_t cols, size_t padding = 3)
      : rows_(rows),
        cols_(cols),
        stride_(cols + padding),
        data_(1 + (rows == 0 ? 0 : (rows - 1) * stride_ + cols), std::numeric_limits<float>::quiet_NaN()) {}
  Mat<float> View() { return {data_.data() + 1, rows_, cols_, stride_}; }
  Mat<const float> View() const { return {data_.data() + 1, rows_, cols_, stride_}; }
  std::vector<float> Dense() const {
    std::vector<float> out;
    for (size_t r = 0; r < rows_; ++r) {
      const std::span<const float> row = View().RowSpan(r);
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
  void Set(const std::vector<double>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      View().Row(i / cols_)[i % cols_] = static_cast<float>(values[i]);
    }
  }

 private:
  size_t rows_, cols_, stride_;
  std::vector<float> data_;
};

enum class Kind { kTrained, kStress };

// The same numbers for the reference, in double, and for the kernel.
struct Problem {
  WkvValues<double> values;
  std::vector<double> dry;
  Matrix r, k, v, d, write, read, state, dry_matrix;
  std::vector<float> decay_base, time_first, decay_scale;

  Problem(size_t steps, size_t channels, size_t slots, Kind kind, bool carried, unsigned seed = 1)
      : values(steps, channels, slots),
        dry(steps * channels),
        r(steps, channels),
        k(steps, channels, 5),
        v(steps, channels, 0),
        d(steps, channels),
        write(steps, slots, 1),
        read(steps, slots, 2),
        state(2 * slots, channels),
        dry_matrix(steps, channels, 7) {
    std::mt19937 rng(seed);
    const bool stress = kind == Kind::kStress;
    const auto fill = [&](std::vector<double>& to, double mean, double deviation) {
      std::normal_distribution<double> normal(mean, deviation);
      for (double& x : to) x = static_cast<float>(normal(rng));
    };
    fill(values.r, 0, stress ? 3 : 1);
    fill(values.k, 0, stress ? 6 : 1);
    fill(values.v, 0, 1);
    fill(values.d, 0, stress ? 8 : 0.5);
    fill(values.decay_base, stress ? 1 : 2.5, stress ? 4 : 1.5);
    fill(values.time_first, stress ? 0 : -1, stress ? 6 : 1);
    fill(dry, 0, 1);
    for (size_t i = 0; i < channels; ++i) {
      values.decay_scale[i] = static_cast<float>(std::exp(-std::exp2(-8.0 * static_cast<double>(i % 8 + 1) / 8)));
    }
    if (carried) {
      fill(values.state, 0, 1);
      for (size_t i = values.state.size() / 2; i < values.state.size(); ++i) {
        values.state[i] = std::abs(values.state[i]);
      }
    }
    FillGate(rng, values.write, stress ? 3 : 1);
    FillGate(rng, values.read, stress ? 3 : 1);
    Copy();
  }

  void Copy() {
    r.Set(values.r), k.Set(values.k), v.Set(values.v), d.Set(values.d);
    write.Set(values.write), read.Set(values.read), state.Set(values.state), dry_matrix.Set(dry);
    decay_base.assign(values.decay_base.begin(), values.decay_base.end());
    time_first.assign(values.time_first.begin(), values.time_first.end());
    decay_scale.assign(values.decay_scale.begin(), values.decay_scale.end());
  }

  WkvInputs Inputs() const {
    return {r.View(),     k.View(),    v.View(),   d.View(),   write.View(),
            read.View(),  decay_base,  time_first, decay_scale};
  }

 private:
  void FillGate(std::mt19937& rng, std::vector<double>& gate, double deviation) const {
    std::normal_distribution<double> normal(0, deviation);
    for (size_t t = 0; t < values.steps; ++t) {
      double sum = 0;
      const std::span<double> row{gate.data() + t * values.slots, values.slots};
      for (double& x : row) sum += x = std::exp(normal(rng));
      for (double& x : row) x = static_cast<float>(x / sum);
    }
  }
};

struct Forward {
  Matrix ry, offset, inv_den, states, state;

  explicit Forward(const Problem& p)
      : ry(p.values.steps, p.values.channels, 2),
        offset(p.values.steps, p.values.channels, 0),
        inv_den(p.values.steps, p.values.channels),
        states(WkvCheckpoints(p.values.steps) * 2 * p.values.slots, p.values.channels),
        state(2 * p.values.slots, p.values.channels, 1) {}
  Forward(const Problem& p, size_t length) : Forward(p) {
    WkvForward(p.Inputs(), length, p.state.View(), ry.View(), state.View(), Save());
  }
  WkvSave<float> Save() { return {offset.View(), inv_den.View(), states.View()}; }
  WkvSave<const float> Saved() const { return {offset.View(), inv_den.View(), states.View()}; }
};

struct Backward {
  Matrix r, k, v, d, write, read, state;
  std::vector<float> decay_base, time_first;

  explicit Backward(const Problem& p)
      : r(p.values.steps, p.values.channels, 1),
        k(p.values.steps, p.values.channels, 0),
        v(p.values.steps, p.values.channels, 4),
        d(p.values.steps, p.values.channels),
        write(p.values.steps, p.values.slots),
        read(p.values.steps, p.values.slots, 0),
        state(2 * p.values.slots, p.values.channels),
        decay_base(p.values.channels),
        time_first(p.values.channels) {}
  Backward(const Problem& p, const Forward& forward, size_t length) : Backward(p) {
    std::vector<float> scratch(WkvBackwardScratch(p.values.slots));
    WkvBackward(p.Inputs(), length, forward.Saved(), {}, p.dry_matrix.View(), Out(), scratch);
  }
  WkvGradients Out() {
    return {r.View(),     k.View(),   v.View(),   d.View(),    write.View(),
            read.View(),  decay_base, time_first, state.View()};
  }
};

// Relative to the norm of the whole tensor.
double Error(const std::vector<float>& actual, const std::vector<double>& expected) {
  return RelativeL2Error(std::span<const float>(actual), std::span<const double>(expected));
}

void CheckGradients(const Backward& actual, const WkvValues<double>& expected, double decay = 5e-5,
                    double others = 1e-4) {
  CHECK(Error(actual.r.Dense(), expected.r) < others);
  CHECK(Error(actual.k.Dense(), expected.k) < others);
  CHECK(Error(actual.v.Dense(), expected.v) < others);
  CHECK(Error(actual.d.Dense(), expected.d) < decay);
  CHECK(Error(actual.decay_base, expected.decay_base) < decay);
  CHECK(Error(actual.time_first, expected.time_first) < others);
  CHECK(Error(actual.state.Dense(), expected.state) < others);
  if (expected.slots == 1) return;  // softmax of one slot: any gradient of the gates vanishes behind it
  CHECK(Error(actual.write.Dense(), expected.write) < others);
  CHECK(Error(actual.read.Dense(), expected.read) < others);
}

std::vector<double> LastState(const WkvOutputs<double>& out, const Problem& p) {
  return {out.states.end() - static_cast<ptrdiff_t>(p.values.state.size()), out.states.end()};
}

void CheckProblem(size_t steps, size_t channels, size_t slots, Kind kind, bool carried) {
  CAPTURE(steps);
  CAPTURE(channels);
  CAPTURE(slots);
  const bool stress = kind == Kind::kStress;
  CAPTURE(stress);
  CAPTURE(carried);
  const Problem p(steps, channels, slots, kind, carried);
  const WkvOutputs<double> out = reference::WkvForward(p.values);
  const std::vector<double> end(p.values.state.size());
  const WkvValues<double> grad = reference::WkvBackward(p.values, out, p.dry, end);
  ForEachTarget([&] {
    const Forward forward(p, steps);
    CHECK(Error(forward.ry.Dense(), out.ry) < 2e-6);
    CHECK(Error(forward.inv_den.Dense(), out.inv_den) < 2e-6);
    CHECK(Error(forward.state.Dense(), LastState(out, p)) < 2e-6);
    CheckGradients(Backward(p, forward, steps), grad);
  });
}

// d f / d x by central differences of fourth order, for every x of `values`.
template <typename Fn>
std::vector<double> Differences(std::vector<double>& values, Fn&& f) {
  std::vector<double> grad;
  for (double& x : values) {
    const double kept = x;
    const double h = 2e-4;
    const auto at = [&](double offset) {
      x = kept + offset;
      return f();
    };
    grad.push_back((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h));
    x = kept;
  }
  return grad;
}

double DoubleError(const std::vector<double>& actual, const std::vector<double>& expected) {
  return RelativeL2Error(std::span<const double>(actual), std::span<const double>(expected));
}

TEST_CASE("wkv reference: its gradient is that of its forward pass") {
  for (const size_t slots : {1, 3, 8}) {
    for (const Kind kind : {Kind::kTrained, Kind::kStress}) {
      for (const size_t steps : {1, 7}) {
        Problem p(steps, 5, slots, kind, true, 7);
        p.values.k[1] = 12.0;  // clamped
        p.values.time_first[2] = -11.0;
        std::vector<double> end(p.values.state.size());
        for (size_t i = 0; i < end.size(); ++i) end[i] = std::sin(static_cast<double>(i));
        const auto loss = [&] {
          const WkvOutputs<double> out = reference::WkvForward(p.values);
          const std::vector<double> last = LastState(out, p);
          double sum = 0;
          for (size_t i = 0; i < out.ry.size(); ++i) sum += p.dry[i] * out.ry[i];
          for (size_t i = 0; i < end.size(); ++i) sum += end[i] * last[i];
          return sum;
        };
        const WkvValues<double> grad =
            reference::WkvBackward(p.values, reference::WkvForward(p.values), p.dry, end);
        WkvValues<double>& x = p.values;
        // Where the numbers are extreme, so is the rounding of the differences.
        const double tolerance = kind == Kind::kStress ? 1e-5 : 1e-6;
        CHECK(DoubleError(Differences(x.r, loss), grad.r) < tolerance);
        CHECK(DoubleError(Differences(x.k, loss), grad.k) < tolerance);
        CHECK(DoubleError(Differences(x.v, loss), grad.v) < tolerance);
        CHECK(DoubleError(Differences(x.d, loss), grad.d) < tolerance);
        CHECK(DoubleError(Differences(x.write, loss), grad.write) < tolerance);
        CHECK(DoubleError(Differences(x.read, loss), grad.read) < tolerance);
        CHECK(DoubleError(Differences(x.decay_base, loss), grad.decay_base) < tolerance);
        CHECK(DoubleError(Differences(x.time_first, loss), grad.time_first) < tolerance);
        CHECK(DoubleError(Differences(x.state, loss), grad.state) < tolerance);
      }
    }
  }
}

TEST_CASE("wkv: all numbers of channels around the vector and the block") {
  for (const size_t channels : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40, 63, 64, 65, 130}) {
    CheckProblem(70, channels, 4, Kind::kTrained, true);
  }
}

TEST_CASE("wkv: all numbers of slots") {
  for (size_t slots = 1; slots <= kWkvMaxSlots; slots += slots < 17 ? 1 : 5) {
    CheckProblem(37, 19, slots, Kind::kTrained, true);
  }
}

TEST_CASE("wkv: all numbers of steps around the segment") {
  for (const size_t steps : {1, 2, 5, 15, 16, 17, 63, 64, 65, 128, 200}) {
    for (const size_t slots : {1, 3, 8}) {
      CheckProblem(steps, 24, slots, Kind::kTrained, steps % 2 == 0);
    }
  }
}

TEST_CASE("wkv: clamped keys and decays down to nothing") {
  for (const size_t slots : {1, 3, 8}) CheckProblem(97, 40, slots, Kind::kStress, slots != 3);
}

TEST_CASE("wkv: 8192 steps") {
  for (const double base : {-3.0, 1.5, 6.0}) {
    CAPTURE(base);
    Problem p(8192, 16, 8, Kind::kTrained, false);
    std::fill(p.values.decay_base.begin(), p.values.decay_base.end(), base);
    p.Copy();
    const WkvOutputs<double> out = reference::WkvForward(p.values);
    const WkvValues<double> grad =
        reference::WkvBackward(p.values, out, p.dry, std::vector<double>(p.values.state.size()));
    ForEachTarget([&] {
      const Forward forward(p, p.values.steps);
      CHECK(Error(forward.ry.Dense(), out.ry) < 2e-6);
      CheckGradients(Backward(p, forward, p.values.steps), grad, 2e-5);
    });
  }
}

TEST_CASE("wkv: rows beyond the length are zero and the state is that after the length") {
  for (const size_t length : {0, 1, 63, 64, 70, 127}) {
    CAPTURE(length);
    const Problem whole(128, 21, 3, Kind::kTrained, true);
    Problem part = whole;
    const auto zero_after = [&](std::vector<double>& x, size_t cols) {
      std::fill(x.begin() + static_cast<ptrdiff_t>(length * cols), x.end(), 0.0);
    };
    zero_after(part.dry, 21);
    const WkvOutputs<double> out = reference::WkvForward(whole.values);
    const WkvValues<double> grad = reference::WkvBackward(whole.values, out, part.dry,
                                                          std::vector<double>(whole.values.state.size()));
    std::vector<double> ry = out.ry;
    zero_after(ry, 21);
    const auto at = out.states.begin() + static_cast<ptrdiff_t>(length * 2 * 3 * 21);
    const std::vector<double> state(at, at + 2 * 3 * 21);
    ForEachTarget([&] {
      const Forward forward(whole, length);
      const Backward backward(whole, forward, length);
      CHECK(Error(forward.state.Dense(), state) < 1e-6);
      const auto check_zero = [&](const Matrix& m) {
        const std::vector<float> dense = m.Dense();
        const size_t first = length * m.View().cols;
        CHECK(std::all_of(dense.begin() + static_cast<ptrdiff_t>(first), dense.end(),
                          [](float x) { return x == 0.0f; }));
      };
      for (const Matrix* m : {&forward.ry, &forward.offset, &forward.inv_den, &backward.r, &backward.k, &backward.v,
                              &backward.d, &backward.write, &backward.read}) {
        check_zero(*m);
      }
      if (length == 0) return;
      CHECK(Error(forward.ry.Dense(), ry) < 1e-6);
      CheckGradients(backward, grad);
    });
  }
}

TEST_CASE("wkv: the same bits step by step, in place, without saving, and by blocks of channels") {
  const size_t steps = 150;
  const size_t channels = 150;
  const Problem p(steps, channels, 6, Kind::kTrained, true);
  const size_t slots = 6;
  ForEachTarget([&] {
    const Forward whole(p, steps);
    Matrix ry(steps, channels);
    Matrix state = p.state;
    for (size_t t = 0; t < steps; ++t) {
      WkvForward(p.Inputs().Rows(t, 1), 1, state.View(), ry.View().Rows(t, 1), state.View(), {});
    }
    CHECK(ry.Dense() == whole.ry.Dense());
    CHECK(state.Dense() == whole.state.Dense());

    const Backward backward(p, whole, steps);
    Forward cut(p);
    Backward cut_backward(p);
    std::vector<float> scratch(WkvBackwardScratch(slots));
    std::vector<float> write(steps * slots), read(steps * slots);
    for (size_t begin = 0; begin < channels; begin += kWkvBlock) {
      const size_t count = std::min(kWkvBlock, channels - begin);
      WkvForward(p.Inputs().Cols(begin, count), steps, p.state.View().Cols(begin, count),
                 cut.ry.View().Cols(begin, count), cut.state.View().Cols(begin, count),
                 cut.Save().Cols(begin, count));
      const WkvSave<const float> saved = cut.Saved().Cols(begin, count);
      WkvGradients out = cut_backward.Out();
      for (Mat<float>* m : {&out.r, &out.k, &out.v, &out.d, &out.state}) *m = m->Cols(begin, count);
      out.decay_base = out.decay_base.subspan(begin, count);
      out.time_first = out.time_first.subspan(begin, count);
      WkvBackward(p.Inputs().Cols(begin, count), steps, saved, {},
                  p.dry_matrix.View().Cols(begin, count), out, scratch);
      for (size_t i = 0; i < write.size(); ++i) {
        write[i] = begin == 0 ? cut_backward.write.Dense()[i] : write[i] + cut_backward.write.Dense()[i];
        read[i] = begin == 0 ? cut_backward.read.Dense()[i] : read[i] + cut_backward.read.Dense()[i];
      }
    }
    CHECK(cut.ry.Dense() == whole.ry.Dense());
    CHECK(cut.state.Dense() == whole.state.Dense());
    CHECK(cut_backward.k.Dense() == backward.k.Dense());
    CHECK(cut_backward.d.Dense() == backward.d.Dense());
    CHECK(cut_backward.decay_base == backward.decay_base);
    CHECK(cut_backward.time_first == backward.time_first);
    CHECK(cut_backward.state.Dense() == backward.state.Dense());
    CHECK(write == backward.write.Dense());
    CHECK(read == backward.read.Dense());
  });
}

// Runs everything in chunks of steps as the chunk-parallel form does.
void CheckChunks(const Problem& p, size_t chunk) {
  const size_t steps = p.values.steps;
  const size_t channels = p.values.channels;
  const size_t rows = 2 * p.values.slots;
  const size_t chunks = (steps + chunk - 1) / chunk;
  const Forward whole(p, steps);
  const Backward whole_backward(p, whole, steps);
  const auto count = [&](size_t c) { return std::min(chunk, steps - c * chunk); };
  const auto saved_rows = [&](size_t c) { return c * chunk / kWkvSegment * rows; };

  Matrix decay(chunks, channels);
  Matrix local(chunks * rows, channels);
  Matrix starts((chunks + 1) * rows, channels);
  starts.Set(p.values.state);
  Forward out(p);
  const auto save = [&](size_t c) {
    return WkvSave<float>{out.offset.View().Rows(c * chunk, count(c)),
                          out.inv_den.View().Rows(c * chunk, count(c)),
                          out.states.View().Rows(saved_rows(c), WkvCheckpoints(count(c)) * rows)};
  };
  for (size_t c = 0; c < chunks; ++c) {
    const WkvInputs in = p.Inputs().Rows(c * chunk, count(c));
    WkvChunk(in, count(c), decay.View().RowSpan(c), local.View().Rows(c * rows, rows));
    WkvCarry(decay.View().RowSpan(c), local.View().Rows(c * rows, rows), starts.View().Rows(c * rows, rows),
             starts.View().Rows((c + 1) * rows, rows));
  }
  for (size_t c = 0; c < chunks; ++c) {
    WkvForward(p.Inputs().Rows(c * chunk, count(c)), count(c), starts.View().Rows(c * rows, rows),
               out.ry.View().Rows(c * chunk, count(c)), out.state.View(),
               save(c));
  }
  const auto close = [](const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
    CHECK(RelativeL2Error(std::span<const float>(a), std::span<const float>(b)) < tolerance);
  };
  close(out.ry.Dense(), whole.ry.Dense(), 1e-6);
  close(out.state.Dense(), whole.state.Dense(), 1e-6);

  Matrix ends((chunks + 1) * rows, channels);
  ends.Set(std::vector<double>((chunks + 1) * rows * channels));
  for (size_t c = chunks; c-- > 0;) {
    WkvChunkBackward(p.Inputs().Rows(c * chunk, count(c)), count(c), save(c),
                     p.dry_matrix.View().Rows(c * chunk, count(c)), decay.View().RowSpan(c),
                     local.View().Rows(c * rows, rows));
    WkvCarry(decay.View().RowSpan(c), local.View().Rows(c * rows, rows),
             ends.View().Rows((c + 1) * rows, rows), ends.View().Rows(c * rows, rows));
  }
  Backward backward(p);
  std::vector<float> scratch(WkvBackwardScratch(p.values.slots));
  for (size_t c = chunks; c-- > 0;) {
    WkvEnd end;
    if (c + 1 < chunks) {
      end = {ends.View().Rows((c + 1) * rows, rows), out.states.View().Rows(saved_rows(c + 1), rows)};
    }
    WkvGradients part = backward.Out();
    for (Mat<float>* m : {&part.r, &part.k, &part.v, &part.d, &part.write, &part.read}) {
      *m = m->Rows(c * chunk, count(c));
    }
    WkvBackward(p.Inputs().Rows(c * chunk, count(c)), count(c), save(c), end,
                p.dry_matrix.View().Rows(c * chunk, count(c)), part, scratch);
  }
  close(backward.r.Dense(), whole_backward.r.Dense(), 1e-5);
  close(backward.k.Dense(), whole_backward.k.Dense(), 1e-5);
  close(backward.v.Dense(), whole_backward.v.Dense(), 1e-5);
  close(backward.d.Dense(), whole_backward.d.Dense(), 1e-5);
  close(backward.write.Dense(), whole_backward.write.Dense(), 1e-5);
  close(backward.read.Dense(), whole_backward.read.Dense(), 1e-5);
  close(backward.decay_base, whole_backward.decay_base, 1e-5);
  close(backward.time_first, whole_backward.time_first, 1e-5);
  close(backward.state.Dense(), whole_backward.state.Dense(), 1e-5);
}

TEST_CASE("wkv: chunks in parallel agree with the serial scan") {
  for (const Kind kind : {Kind::kTrained, Kind::kStress}) {
    const Problem p(300, 37, 5, kind, true);
    ForEachTarget([&] {
      CheckChunks(p, 64);
      CheckChunks(p, 192);
    });
  }
}

TEST_CASE("wkv: parameter gradients accumulate") {
  const Problem p(20, 9, 2, Kind::kTrained, false);
  ForEachTarget([&] {
    const Forward forward(p, 20);
    Backward once(p, forward, 20);
    const std::vector<float> decay = once.decay_base;
    const std::vector<float> first = once.time_first;
    std::vector<float> scratch(WkvBackwardScratch(2));
    WkvBackward(p.Inputs(), 20, forward.Saved(), {}, p.dry_matrix.View(), once.Out(), scratch);
    for (size_t i = 0; i < 9; ++i) {
      CHECK(once.decay_base[i] == decay[i] + decay[i]);
      CHECK(once.time_first[i] == first[i] + first[i]);
    }
  });
}

TEST_CASE("wkv: NaN in any input reaches the output") {
  for (const size_t which : {0, 1, 2, 3, 4, 5}) {
    CAPTURE(which);
    Problem p(4, 3, 2, Kind::kTrained, true);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<double>* inputs[] = {&p.values.r, &p.values.k, &p.values.v,
                                     &p.values.d, &p.values.write, &p.values.read};
    (*inputs[which])[0] = nan;
    p.Copy();
    ForEachTarget([&] {
      const Forward forward(p, 4);
      const std::vector<float> ry = forward.ry.Dense();
      CHECK(std::any_of(ry.begin(), ry.end(), [](float x) { return std::isnan(x); }));
    });
  }
}

}  // namespace
}  // namespace lanewise::kernels

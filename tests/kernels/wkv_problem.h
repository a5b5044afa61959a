// Problems for the tests of the WKV scan: the same numbers for the reference and for the kernel.
#ifndef LANEWISE_TESTS_KERNELS_WKV_PROBLEM_H_
#define LANEWISE_TESTS_KERNELS_WKV_PROBLEM_H_

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/reference/wkv.h"
#include "kernels/wkv.h"
#include "tests/support/compare.h"

namespace lanewise::kernels {

using reference::WkvOutputs;
using reference::WkvValues;

// A matrix that starts at an odd address, with NaN between its rows and nothing after the last one.
class Matrix {
 public:
  Matrix(size_t rows, size_t cols, size_t padding = 3)
      : rows_(rows),
        cols_(cols),
        stride_(cols + padding),
        data_(1 + (rows == 0 ? 0 : (rows - 1) * stride_ + cols),
              std::numeric_limits<float>::quiet_NaN()) {}
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
      values.decay_scale[i] =
          static_cast<float>(std::exp(-std::exp2(-8.0 * static_cast<double>(i % 8 + 1) / 8)));
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
    return {r.View(),    k.View(),   v.View(),   d.View(),   write.View(),
            read.View(), decay_base, time_first, decay_scale};
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
    return {r.View(),    k.View(),   v.View(),   d.View(),    write.View(),
            read.View(), decay_base, time_first, state.View()};
  }
};

// Relative to the norm of the whole tensor.
inline double Error(const std::vector<float>& actual, const std::vector<double>& expected) {
  return testing::RelativeL2Error(std::span<const float>(actual),
                                  std::span<const double>(expected));
}

}  // namespace lanewise::kernels

#endif  // LANEWISE_TESTS_KERNELS_WKV_PROBLEM_H_

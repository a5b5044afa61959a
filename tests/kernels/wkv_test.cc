#include "kernels/wkv.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "kernels/reference/wkv.h"
#include "tests/kernels/wkv_problem.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::ForEachTarget;
using testing::RelativeL2Error;

void CheckGradients(const Backward& actual, const WkvValues<double>& expected, double decay = 5e-5,
                    double others = 1e-4) {
  CHECK(Error(actual.r.Dense(), expected.r) < others);
  CHECK(Error(actual.k.Dense(), expected.k) < others);
  CHECK(Error(actual.v.Dense(), expected.v) < others);
  CHECK(Error(actual.d.Dense(), expected.d) < decay);
  CHECK(Error(actual.decay_base, expected.decay_base) < decay);
  CHECK(Error(actual.time_first, expected.time_first) < others);
  CHECK(Error(actual.state.Dense(), expected.state) < others);
  if (expected.slots == 1)
    return;  // softmax of one slot: any gradient of the gates vanishes behind it
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
    const WkvValues<double> grad = reference::WkvBackward(
        whole.values, out, part.dry, std::vector<double>(whole.values.state.size()));
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
      for (const Matrix* m :
           {&forward.ry, &forward.offset, &forward.inv_den, &backward.r, &backward.k, &backward.v,
            &backward.d, &backward.write, &backward.read}) {
        check_zero(*m);
      }
      if (length == 0) return;
      CHECK(Error(forward.ry.Dense(), ry) < 1e-6);
      CheckGradients(backward, grad);
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
      CHECK(once.decay_base[i] == doctest::Approx(2 * decay[i]).epsilon(1e-5));
      CHECK(once.time_first[i] == doctest::Approx(2 * first[i]).epsilon(1e-5));
    }
  });
}

TEST_CASE("wkv: NaN in any input reaches the output") {
  for (const size_t which : {0, 1, 2, 3, 4, 5}) {
    CAPTURE(which);
    Problem p(4, 3, 2, Kind::kTrained, true);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<double>* inputs[] = {&p.values.r, &p.values.k,     &p.values.v,
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

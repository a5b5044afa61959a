#include "kernels/token_shift.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/reference/token_shift.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using reference::ShiftParams;
using reference::ShiftRows;
using testing::ForEachTarget;
using testing::RelativeL2Error;

// A matrix that starts at an odd address, with NaN between its rows and nothing after the last one.
struct Matrix {
  Matrix(size_t rows_in, size_t cols_in, size_t padding)
      : rows(rows_in),
        cols(cols_in),
        stride(cols_in + padding),
        data(1 + (rows - 1) * stride + cols, std::numeric_limits<float>::quiet_NaN()) {}
  Matrix(size_t cols_in, size_t padding, const std::vector<double>& values)
      : Matrix(values.size() / cols_in, cols_in, padding) {
    for (size_t i = 0; i < values.size(); ++i) {
      View().Row(i / cols)[i % cols] = static_cast<float>(values[i]);
    }
  }
  Mat<float> View() { return {data.data() + 1, rows, cols, stride}; }
  std::vector<float> Dense() {
    std::vector<float> out;
    for (size_t r = 0; r < rows; ++r) out.insert(out.end(), View().Row(r), View().Row(r) + cols);
    return out;
  }
  size_t rows, cols, stride;
  std::vector<float> data;
};

using Three = std::array<std::vector<double>, 3>;

struct Problem {
  ShiftRows<double> rows;
  ShiftParams<double> params;
  Three dx;
  std::vector<double> residual;
  std::array<std::vector<float>, 6> raw;

  Problem(size_t steps, size_t channels, size_t back) {
    std::mt19937 rng(3);
    const auto fill = [&](std::vector<double>& to, size_t size, double deviation) {
      std::normal_distribution<double> normal(0, deviation);
      to.resize(size);
      for (double& x : to) x = static_cast<float>(normal(rng));
    };
    rows.channels = channels;
    fill(rows.carried, back * channels, 1);
    fill(rows.n, steps * channels, 1);
    for (auto& d : dx) fill(d, steps * channels, 1);
    fill(residual, steps * channels, 1);
    for (size_t i = 0; i < 6; ++i) {
      fill(params[i], channels, 2);
      raw[i].assign(params[i].begin(), params[i].end());
    }
  }
  TokenShiftParams<const float> Raw() const {
    return {raw[0], raw[1], raw[2], raw[3], raw[4], raw[5]};
  }
};

double Error(const std::vector<float>& actual, const std::vector<double>& expected) {
  return RelativeL2Error(std::span<const float>(actual), std::span<const double>(expected));
}

double LargestError(const std::vector<float>& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (const double x : expected) largest = std::fmax(largest, std::fabs(x));
  return testing::MaxErrorRelativeTo(std::span<const float>(actual),
                                     std::span<const double>(expected), largest);
}

void CheckTokenShift(size_t steps, size_t channels, size_t cut) {
  CAPTURE(steps);
  CAPTURE(channels);
  CAPTURE(cut);
  const Problem p(steps, channels, kTokenShiftCarriedRows);
  const Three expected = reference::TokenShiftForward(p.rows, p.params);
  std::vector<double> expected_dn;
  const ShiftParams<double> expected_grads =
      reference::TokenShiftBackward(p.rows, p.params, p.dx, expected_dn);
  for (size_t i = 0; i < expected_dn.size(); ++i) expected_dn[i] += p.residual[i];
  ForEachTarget([&] {
    Matrix n(channels, 3, p.rows.n), carried(channels, 0, p.rows.carried);
    Matrix xr(steps, channels, 1), xk(steps, channels, 2), xv(steps, channels, 0);
    Matrix dxr(channels, 1, p.dx[0]), dxk(channels, 4, p.dx[1]), dxv(channels, 0, p.dx[2]);
    Matrix dn(channels, 5, p.residual);
    const size_t blocks = (steps + cut - 1) / cut;
    Matrix sums(kTokenShiftSums * blocks, channels, 1);
    for (size_t b = 0; b < blocks; ++b) {
      const size_t t1 = std::min(steps, (b + 1) * cut);
      TokenShiftForward(n.View(), carried.View(), p.Raw(), b * cut, t1, xr.View(), xk.View(),
                        xv.View());
      TokenShiftBackward(n.View(), carried.View(), p.Raw(), dxr.View(), dxk.View(), dxv.View(),
                         b * cut, t1, dn.View(), dn.View(),
                         sums.View().Rows(b * kTokenShiftSums, kTokenShiftSums));
    }
    CHECK(LargestError(xr.Dense(), expected[0]) < kTokenShiftTolerance);
    CHECK(LargestError(xk.Dense(), expected[1]) < kTokenShiftTolerance);
    CHECK(LargestError(xv.Dense(), expected[2]) < kTokenShiftTolerance);
    CHECK(LargestError(dn.Dense(), expected_dn) < kTokenShiftTolerance);
    std::array<std::vector<float>, 6> grads;
    for (auto& g : grads) g.assign(channels, 0.0f);
    const TokenShiftParams<float> out{grads[0], grads[1], grads[2], grads[3], grads[4], grads[5]};
    TokenShiftParamGradients(p.Raw(), sums.View(), out);
    for (size_t i = 0; i < 6; ++i) {
      CAPTURE(i);
      CHECK(Error(grads[i], expected_grads[i]) < 5e-6);
    }
    TokenShiftParamGradients(p.Raw(), sums.View(), out);
    CHECK(Error(grads[0], expected_grads[0]) == doctest::Approx(1.0));  // accumulates
  });
}

void CheckChannelShift(size_t steps, size_t channels, size_t cut) {
  CAPTURE(steps);
  CAPTURE(channels);
  CAPTURE(cut);
  const Problem p(steps, channels, 1);
  const std::vector<double> expected = reference::ChannelShiftForward(p.rows, p.params[0]);
  std::vector<double> expected_dn;
  const std::vector<double> expected_grad =
      reference::ChannelShiftBackward(p.rows, p.params[0], p.dx[0], expected_dn);
  for (size_t i = 0; i < expected_dn.size(); ++i) expected_dn[i] += p.residual[i];
  ForEachTarget([&] {
    Matrix n(channels, 3, p.rows.n), carried(channels, 0, p.rows.carried);
    Matrix x(steps, channels, 1), dx(channels, 1, p.dx[0]), dn(channels, 5, p.residual);
    const size_t blocks = (steps + cut - 1) / cut;
    Matrix sums(blocks, channels, 1);
    for (size_t b = 0; b < blocks; ++b) {
      const size_t t1 = std::min(steps, (b + 1) * cut);
      ChannelShiftForward(n.View(), carried.View(), p.raw[0], b * cut, t1, x.View());
      ChannelShiftBackward(n.View(), carried.View(), p.raw[0], dx.View(), b * cut, t1, dn.View(),
                           dn.View(), sums.View().Rows(b, 1));
    }
    CHECK(LargestError(x.Dense(), expected) < kTokenShiftTolerance);
    CHECK(LargestError(dn.Dense(), expected_dn) < kTokenShiftTolerance);
    std::vector<float> grad(channels);
    ChannelShiftParamGradients(p.raw[0], sums.View(), grad);
    CHECK(Error(grad, expected_grad) < 5e-6);
  });
}

TEST_CASE("token_shift: all numbers of channels around the vector and the chunk") {
  for (const size_t channels :
       {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 255, 256, 257, 300, 520}) {
    CheckTokenShift(13, channels, 13);
    CheckChannelShift(13, channels, 13);
  }
}

TEST_CASE("token_shift: all numbers of steps, whole and cut") {
  for (size_t steps = 1; steps < 12; ++steps) {
    for (const size_t cut : {1, 2, 3, 4, 5, 6, 7, 12}) {
      CheckTokenShift(steps, 20, cut);
      CheckChannelShift(steps, 20, cut);
    }
  }
  CheckTokenShift(512, 33, 128);
  CheckTokenShift(8192, 8, 512);
}

TEST_CASE(
    "token_shift: without carried rows the past is zero, without a residual dn is overwritten") {
  ForEachTarget([] {
    const size_t channels = 19;
    Problem p(6, channels, kTokenShiftCarriedRows);
    std::fill(p.rows.carried.begin(), p.rows.carried.end(), 0.0);
    const Three expected = reference::TokenShiftForward(p.rows, p.params);
    std::vector<double> expected_dn;
    reference::TokenShiftBackward(p.rows, p.params, p.dx, expected_dn);
    Matrix n(channels, 3, p.rows.n), x(6, channels, 0), unused(6, channels, 0), dn(6, channels, 2);
    Matrix dxr(channels, 1, p.dx[0]), dxk(channels, 4, p.dx[1]), dxv(channels, 0, p.dx[2]);
    Matrix sums(6, channels, 0);
    TokenShiftForward(n.View(), {}, p.Raw(), 0, 6, x.View(), unused.View(), unused.View());
    TokenShiftBackward(n.View(), {}, p.Raw(), dxr.View(), dxk.View(), dxv.View(), 0, 6, {},
                       dn.View(), sums.View());
    CHECK(LargestError(x.Dense(), expected[0]) < kTokenShiftTolerance);
    CHECK(LargestError(dn.Dense(), expected_dn) < kTokenShiftTolerance);

    ShiftRows<double> one{channels, std::vector<double>(channels), p.rows.n};
    const std::vector<double> mixed = reference::ChannelShiftForward(one, p.params[0]);
    reference::ChannelShiftBackward(one, p.params[0], p.dx[0], expected_dn);
    ChannelShiftForward(n.View(), {}, p.raw[0], 0, 6, x.View());
    ChannelShiftBackward(n.View(), {}, p.raw[0], dxr.View(), 0, 6, {}, dn.View(),
                         sums.View().Rows(0, 1));
    CHECK(LargestError(x.Dense(), mixed) < kTokenShiftTolerance);
    CHECK(LargestError(dn.Dense(), expected_dn) < kTokenShiftTolerance);
  });
}

TEST_CASE("token_shift: cutting rows or columns does not change the bits") {
  const size_t steps = 21;
  const size_t channels = 300;
  const Problem p(steps, channels, kTokenShiftCarriedRows);
  ForEachTarget([&] {
    Matrix n(channels, 3, p.rows.n), carried(channels, 0, p.rows.carried);
    Matrix dxr(channels, 1, p.dx[0]), dxk(channels, 4, p.dx[1]), dxv(channels, 0, p.dx[2]);
    const auto run = [&](size_t cut, size_t col, size_t cols) {
      std::vector<Matrix> out(4, Matrix(steps, channels, 0));
      Matrix sums(6, channels, 0);
      const auto slice = [&](size_t i) { return out[i].View().Cols(col, cols); };
      for (size_t t = 0; t < steps; t += cut) {
        const size_t t1 = std::min(steps, t + cut);
        TokenShiftForward(n.View().Cols(col, cols), carried.View().Cols(col, cols),
                          p.Raw().Cols(col, cols), t, t1, slice(0), slice(1), slice(2));
        TokenShiftBackward(n.View().Cols(col, cols), carried.View().Cols(col, cols),
                           p.Raw().Cols(col, cols), dxr.View().Cols(col, cols),
                           dxk.View().Cols(col, cols), dxv.View().Cols(col, cols), t, t1, {},
                           slice(3), sums.View().Cols(col, cols));
      }
      std::vector<float> all;
      for (size_t i = 0; i < 4; ++i) {
        for (size_t t = 0; t < steps; ++t) {
          all.insert(all.end(), slice(i).Row(t) + 0, slice(i).Row(t) + 64);
        }
      }
      return all;
    };
    const std::vector<float> whole = run(steps, 0, channels);
    for (const size_t cut : {1, 3, 4, 10}) CHECK(run(cut, 0, channels) == whole);
    CHECK(run(steps, 0, 64) == whole);
  });
}

TEST_CASE("token_shift: a short window shifts the carried rows, in place too") {
  for (size_t length = 0; length < 7; ++length) {
    CAPTURE(length);
    const Problem p(7, 5, kTokenShiftCarriedRows);
    Matrix n(5, 3, p.rows.n), carried(5, 0, p.rows.carried), out(4, 5, 2);
    std::vector<double> all = p.rows.carried;
    all.insert(all.end(), p.rows.n.begin(), p.rows.n.begin() + static_cast<ptrdiff_t>(length * 5));
    const std::vector<float> expected(all.end() - 20, all.end());
    ShiftCarry(n.View(), length, carried.View(), out.View());
    CHECK(out.Dense() == expected);
    ShiftCarry(n.View(), length, carried.View(), carried.View());
    CHECK(carried.Dense() == expected);
    ShiftCarry(n.View(), length, {}, out.View());
    for (size_t j = 0; j < 4; ++j) {
      const double from_n = length + j >= 4 ? p.rows.n[(length + j - 4) * 5] : 0.0;
      CHECK(out.View().Row(j)[0] == static_cast<float>(from_n));
    }
  }
}

// The oracle itself: central differences of fourth order, in double.
template <typename Fn>
std::vector<double> Differences(std::vector<double>& values, Fn&& loss) {
  std::vector<double> grad;
  for (double& x : values) {
    const double kept = x;
    const auto at = [&](double offset) {
      x = kept + offset;
      return loss();
    };
    const double h = 1e-3;
    grad.push_back((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h));
    x = kept;
  }
  return grad;
}

TEST_CASE("token_shift reference: its gradient is that of its forward pass") {
  Problem p(9, 3, kTokenShiftCarriedRows);
  const auto close = [](const std::vector<double>& a, const std::vector<double>& b) {
    return RelativeL2Error(std::span<const double>(a), std::span<const double>(b)) < 1e-9;
  };
  const auto loss = [&] {
    const Three x = reference::TokenShiftForward(p.rows, p.params);
    double sum = 0;
    for (size_t z = 0; z < 3; ++z) {
      for (size_t i = 0; i < x[z].size(); ++i) sum += p.dx[z][i] * x[z][i];
    }
    return sum;
  };
  std::vector<double> dn;
  const ShiftParams<double> grads = reference::TokenShiftBackward(p.rows, p.params, p.dx, dn);
  CHECK(close(Differences(p.rows.n, loss), dn));
  for (size_t i = 0; i < 6; ++i) CHECK(close(Differences(p.params[i], loss), grads[i]));

  const auto channel_loss = [&] {
    const std::vector<double> x = reference::ChannelShiftForward(p.rows, p.params[0]);
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += p.dx[0][i] * x[i];
    return sum;
  };
  const std::vector<double> grad =
      reference::ChannelShiftBackward(p.rows, p.params[0], p.dx[0], dn);
  CHECK(close(Differences(p.rows.n, channel_loss), dn));
  CHECK(close(Differences(p.params[0], channel_loss), grad));
}

}  // namespace
}  // namespace lanewise::kernels

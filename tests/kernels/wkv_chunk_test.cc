// However the work is cut, the result is the same: by steps, by blocks of channels, by chunks of
// time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "kernels/wkv.h"
#include "tests/kernels/wkv_problem.h"
#include "tests/support/compare.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::ForEachTarget;
using testing::RelativeL2Error;

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
        write[i] =
            begin == 0 ? cut_backward.write.Dense()[i] : write[i] + cut_backward.write.Dense()[i];
        read[i] =
            begin == 0 ? cut_backward.read.Dense()[i] : read[i] + cut_backward.read.Dense()[i];
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
    WkvCarry(decay.View().RowSpan(c), local.View().Rows(c * rows, rows),
             starts.View().Rows(c * rows, rows), starts.View().Rows((c + 1) * rows, rows));
  }
  for (size_t c = 0; c < chunks; ++c) {
    WkvForward(p.Inputs().Rows(c * chunk, count(c)), count(c), starts.View().Rows(c * rows, rows),
               out.ry.View().Rows(c * chunk, count(c)), out.state.View(), save(c));
  }
  const auto close = [](const std::vector<float>& a, const std::vector<float>& b,
                        double tolerance) {
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
      end = {ends.View().Rows((c + 1) * rows, rows),
             out.states.View().Rows(saved_rows(c + 1), rows)};
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

}  // namespace
}  // namespace lanewise::kernels

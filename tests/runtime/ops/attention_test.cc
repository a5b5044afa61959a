#include "runtime/ops/attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/reference/attention.h"
#include "kernels/reference/rope.h"
#include "runtime/check.h"
#include "runtime/executor.h"
#include "runtime/ops/cached_attention.h"
#include "runtime/ops/rope.h"
#include "tests/support/compare.h"
#include "tests/support/op_harness.h"

namespace lanewise::runtime {
namespace {

constexpr double kTheta = 10000.0;

struct Sizes {
  AttentionShape shape;
  size_t steps;
  size_t head_dim;
  size_t Rows() const { return shape.sequences * steps; }
  size_t Width() const { return (shape.heads + 2 * shape.kv_heads) * head_dim; }
  size_t OutWidth() const { return shape.heads * head_dim; }
};

std::vector<float> Random(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(count);
  for (float& x : v) x = normal(rng);
  return v;
}

// Rotation and attention, with their gradient if dout is given.
struct Result {
  std::vector<float> out, dqkv;
};

Result Run(const Sizes& sizes, const std::vector<float>& qkv, const std::vector<float>& dout,
           const Parallel& parallel, size_t workers) {
  Graph graph;
  const TensorId x = graph.External("qkv", sizes.Rows(), sizes.Width());
  const TensorId dx = graph.External("dqkv", sizes.Rows(), sizes.Width());
  const TensorId y = graph.External("out", sizes.Rows(), sizes.OutWidth());
  const TensorId dy = graph.External("dout", sizes.Rows(), sizes.OutWidth());
  const TensorId source = testing::Source(graph, x, dx);
  const TensorId table =
      RopeTable(graph, sizes.shape.sequences, sizes.steps, sizes.head_dim, kTheta);
  const TensorId rotated = Rope(graph, source, table, sizes.shape.heads + sizes.shape.kv_heads);
  testing::Sink(graph, Attention(graph, rotated, sizes.shape), dy, y);
  graph.Differentiate();
  const auto shared = std::make_shared<const Graph>(graph);
  Executor executor(shared, std::make_shared<const Plan>(MakePlan(*shared, workers)));
  Result result = {std::vector<float>(sizes.Rows() * sizes.OutWidth()),
                   std::vector<float>(qkv.size())};
  executor.Bind(x, qkv.data());
  executor.Bind(dx, result.dqkv.data());
  executor.Bind(y, result.out.data());
  executor.Bind(dy, dout.data());
  executor.Run(parallel);
  return result;
}

struct Exact {
  std::vector<double> out, dqkv;
};

Exact Reference(const Sizes& sizes, const std::vector<float>& qkv, const std::vector<float>& dout) {
  std::vector<double> x(qkv.begin(), qkv.end());
  const std::vector<double> dy(dout.begin(), dout.end());
  Exact exact = {std::vector<double>(dy.size()), std::vector<double>(x.size())};
  const size_t hd = sizes.head_dim;
  const size_t group = sizes.shape.Group();
  const size_t rotated = (sizes.shape.heads + sizes.shape.kv_heads) * hd;
  std::vector<int32_t> positions(sizes.Rows());
  for (size_t r = 0; r < positions.size(); ++r) {
    positions[r] = static_cast<int32_t>(r % sizes.steps);
  }
  const Mat<double> xm = {x.data(), sizes.Rows(), sizes.Width(), sizes.Width()};
  const Mat<double> dxm = {exact.dqkv.data(), sizes.Rows(), sizes.Width(), sizes.Width()};
  const Mat<double> ym = {exact.out.data(), sizes.Rows(), sizes.OutWidth(), sizes.OutWidth()};
  const Mat<const double> dym = {dy.data(), sizes.Rows(), sizes.OutWidth(), sizes.OutWidth()};
  kernels::reference::Rope<double>(kTheta, hd, positions, 1.0, xm.Cols(0, rotated));
  std::vector<double> lse(group * sizes.steps);
  for (size_t s = 0; s < sizes.shape.sequences; ++s) {
    for (size_t kv = 0; kv < sizes.shape.kv_heads; ++kv) {
      const auto part = [&](const Mat<double>& m, size_t head, size_t count) {
        return m.Rows(s * sizes.steps, sizes.steps).Cols(head * hd, count * hd);
      };
      const size_t k = sizes.shape.heads + kv;
      const size_t v = k + sizes.shape.kv_heads;
      kernels::reference::AttentionForward<double>(part(xm, kv * group, group), part(xm, k, 1),
                                                   part(xm, v, 1), part(ym, kv * group, group),
                                                   {lse.data(), group, sizes.steps, sizes.steps});
      kernels::reference::AttentionBackward<double>(
          part(xm, kv * group, group), part(xm, k, 1), part(xm, v, 1),
          dym.Rows(s * sizes.steps, sizes.steps).Cols(kv * group * hd, group * hd),
          part(dxm, kv * group, group), part(dxm, k, 1), part(dxm, v, 1));
    }
  }
  kernels::reference::Rope<double>(kTheta, hd, positions, -1.0, dxm.Cols(0, rotated));
  return exact;
}

void Check(const Sizes& sizes) {
  CAPTURE(sizes.shape.sequences);
  CAPTURE(sizes.shape.heads);
  CAPTURE(sizes.shape.kv_heads);
  CAPTURE(sizes.steps);
  CAPTURE(sizes.head_dim);
  const std::vector<float> qkv = Random(sizes.Rows() * sizes.Width(), 1);
  const std::vector<float> dout = Random(sizes.Rows() * sizes.OutWidth(), 2);
  const Exact exact = Reference(sizes, qkv, dout);
  const Result serial = Run(sizes, qkv, dout, Parallel(), 1);
  CHECK(testing::RelativeL2Error<float, double>(serial.out, exact.out) <= 2e-6);
  CHECK(testing::RelativeL2Error<float, double>(serial.dqkv, exact.dqkv) <= 2e-6);
  for (size_t threads : {2, 3, 8}) {
    const Scheduler scheduler(threads);
    const Result parallel = Run(sizes, qkv, dout, scheduler.All(), threads);
    CHECK(testing::SameBits<const float, const float>(parallel.out, serial.out));
    CHECK(testing::SameBits<const float, const float>(parallel.dqkv, serial.dqkv));
  }
}

TEST_CASE("attention op: against the reference, the same bits for any number of threads") {
  for (size_t head_dim : {2, 24, 48, 64, 80, 128}) Check({{2, 4, 2}, 65, head_dim});
  for (size_t steps : {1, 2, 63, 64, 300}) {
    Check({{2, 2, 1}, steps, 8});  // few heads: in parts
    Check({{3, 4, 4}, steps, 8});
  }
  Check({{1, 3, 3}, 700, 16});
  Check({{1, 6, 1}, 333, 16});
  Check({{9, 2, 1}, 100, 32});
}

TEST_CASE("attention op: shapes that do not fit are refused with a message") {
  Graph graph;
  const TensorId x = graph.Activation("x", 12, 40);
  CHECK_THROWS_WITH_AS(Attention(graph, x, {2, 3, 2}),
                       "attention: 3 heads cannot share 2 key/value heads", CheckError);
  CHECK_THROWS_WITH_AS(Attention(graph, x, {2, 4, 1}),
                       "attention: qkv has 40 columns for 4 heads and 1 key/value heads",
                       CheckError);
  CHECK_THROWS_WITH_AS(Attention(graph, x, {5, 2, 1}), "attention: 12 rows in 5 sequences",
                       CheckError);
  CHECK_THROWS_WITH_AS(RopeTable(graph, 1, 4, 5, kTheta),
                       "rope: heads of 5 columns, which is not even", CheckError);
  const TensorId table = RopeTable(graph, 1, 5, 8, kTheta);
  CHECK_THROWS_WITH_AS(Rope(graph, x, table, 2), "rope: 12 rows, the table has 5", CheckError);
  CHECK_THROWS_WITH_AS(Rope(graph, x, table, 6), "rope: 6 heads of 8 columns, x has 40",
                       CheckError);
}

// Runs windows of given lengths over caches, as a session does.
class CachedRunner {
 public:
  CachedRunner(const Sizes& sizes, size_t capacity, bool slide, size_t threads, DType caches)
      : sizes_(sizes),
        scheduler_(threads),
        k_(sizes.shape.sequences * capacity * sizes.shape.kv_heads * sizes.head_dim, NAN),
        v_(k_.size(), NAN),
        out_(sizes.Rows() * sizes.OutWidth()),
        starts_(sizes.shape.sequences),
        lengths_(sizes.shape.sequences) {
    Graph graph;
    const size_t sequences = sizes.shape.sequences;
    x_ = graph.External("qkv", sizes.Rows(), sizes.Width());
    const TensorId starts = graph.External("starts", sequences, 1, DType::kInt32);
    const TensorId lengths = graph.External("lengths", sequences, 1, DType::kInt32);
    const size_t cols = sizes.shape.kv_heads * sizes.head_dim;
    const TensorId k = graph.External("k", sequences * capacity, cols, caches);
    const TensorId v = graph.External("v", sequences * capacity, cols, caches);
    const TensorId out = graph.External("out", sizes.Rows(), sizes.OutWidth());
    const TensorId source = testing::Source(graph, x_, {});
    const TensorId table = RopeTable(graph, sequences, sizes.steps, sizes.head_dim, kTheta, starts);
    const TensorId rotated = Rope(graph, source, table, sizes.shape.heads + sizes.shape.kv_heads);
    const TensorId y = CachedAttention(graph, {.qkv = rotated,
                                               .shape = sizes.shape,
                                               .starts = starts,
                                               .lengths = lengths,
                                               .keys = k,
                                               .values = v,
                                               .slide = slide});
    testing::Sink(graph, y, {}, out);
    const auto shared = std::make_shared<const Graph>(graph);
    executor_ = std::make_unique<Executor>(
        shared, std::make_shared<const Plan>(MakePlan(*shared, threads)));
    executor_->Bind(starts, starts_.data());
    executor_->Bind(lengths, lengths_.data());
    executor_->Bind(k, k_.data());
    executor_->Bind(v, v_.data());
    executor_->Bind(out, out_.data());
  }

  // `window`: the raw rows of all sequences, [Rows, Width]. Returns the outputs.
  const std::vector<float>& Run(const std::vector<float>& window,
                                const std::vector<int32_t>& lengths) {
    lengths_ = lengths;
    executor_->Bind(x_, window.data());
    executor_->Run(scheduler_.All());
    for (size_t s = 0; s < starts_.size(); ++s) starts_[s] += lengths[s];
    return out_;
  }

 private:
  Sizes sizes_;
  Scheduler scheduler_;
  std::vector<float> k_, v_, out_;  // caches of bf16 need half of k_ and v_
  std::vector<int32_t> starts_, lengths_;
  TensorId x_;
  std::unique_ptr<Executor> executor_;
};

// Feeds `total` tokens of two sequences in windows of sizes.steps, the second one a step shorter
// each time, and compares with attention over the whole text (or its last `visible` tokens).
std::vector<float> FeedAll(const Sizes& sizes, size_t total, size_t capacity, bool slide,
                           size_t threads, const std::vector<float>& text,
                           DType caches = DType::kFloat32) {
  CachedRunner runner(sizes, capacity, slide, threads, caches);
  const size_t width = sizes.Width();
  std::vector<float> all(sizes.shape.sequences * total * sizes.OutWidth(), NAN);
  std::vector<size_t> done(sizes.shape.sequences, 0);
  while (done[0] < total || done.back() < total) {
    std::vector<float> window(sizes.Rows() * width, 0.25F);
    std::vector<int32_t> lengths(done.size());
    for (size_t s = 0; s < done.size(); ++s) {
      const size_t most = sizes.steps > 1 && s % 2 == 1 ? sizes.steps - 1 : sizes.steps;
      const size_t count = std::min(most, total - done[s]);
      lengths[s] = static_cast<int32_t>(count);
      std::copy_n(text.data() + (s * total + done[s]) * width, count * width,
                  window.data() + s * sizes.steps * width);
    }
    const std::vector<float>& out = runner.Run(window, lengths);
    for (size_t s = 0; s < done.size(); ++s) {
      const size_t count = static_cast<size_t>(lengths[s]) * sizes.OutWidth();
      std::copy_n(out.data() + s * sizes.steps * sizes.OutWidth(), count,
                  all.data() + (s * total + done[s]) * sizes.OutWidth());
      for (size_t i = count; i < sizes.steps * sizes.OutWidth(); ++i) {
        REQUIRE(out[s * sizes.steps * sizes.OutWidth() + i] == 0.0F);
      }
      done[s] += static_cast<size_t>(lengths[s]);
    }
  }
  return all;
}

void CheckCached(const AttentionShape& shape, size_t head_dim, size_t steps, size_t total) {
  CAPTURE(shape.heads);
  CAPTURE(shape.kv_heads);
  CAPTURE(head_dim);
  CAPTURE(steps);
  const Sizes whole = {shape, total, head_dim};
  const std::vector<float> text = Random(whole.Rows() * whole.Width(), 3);
  const std::vector<float> dout(whole.Rows() * whole.OutWidth());
  const Exact exact = Reference(whole, text, dout);
  for (const DType caches : {DType::kFloat32, DType::kBFloat16}) {
    const std::vector<float> serial =
        FeedAll({shape, steps, head_dim}, total, total + 3, false, 1, text, caches);
    const double error = testing::RelativeL2Error<float, double>(serial, exact.out);
    // A rounded key or value is off by 1/512 of itself at most.
    CHECK(error <= (caches == DType::kFloat32 ? 2e-6 : 1.0 / 256));
    for (size_t threads : {2, 3}) {
      CHECK(testing::SameBits<const float, const float>(
          FeedAll({shape, steps, head_dim}, total, total + 3, false, threads, text, caches),
          serial));
    }
  }
}

TEST_CASE("cached attention op: windows of any length equal the whole") {
  for (size_t steps : {1, 2, 7, 64, 130}) {
    CheckCached({2, 4, 2}, 24, steps, 150);
    CheckCached({1, 8, 8}, 16, steps, 70);
  }
  // More than one chunk of the cache: streamed, and by tiles.
  CheckCached({2, 8, 8}, 64, 1, 300);
  CheckCached({1, 12, 6}, 128, 1, 70);  // and several units of key/value heads
  CheckCached({2, 6, 3}, 16, 64, 1100);
  for (size_t head_dim : {2, 48, 64, 80, 128}) CheckCached({1, 2, 2}, head_dim, 5, 33);
}

TEST_CASE("cached attention op: a full cache is an error, or slides") {
  const AttentionShape shape = {2, 4, 2};
  const size_t total = 40;
  const size_t capacity = 16;
  const Sizes whole = {shape, total, 8};
  const std::vector<float> text = Random(whole.Rows() * whole.Width(), 4);
  CHECK_THROWS_AS(FeedAll({shape, 5, 8}, total, capacity, false, 1, text), CheckError);
  // Keys and values are rounded alike, however they come.
  const auto half = [&](size_t steps) {
    return FeedAll({shape, steps, 8}, total, capacity, true, 1, text, DType::kBFloat16);
  };
  CHECK(testing::RelativeL2Error<float, float>(half(7), half(1)) <= 2e-6);
  const std::vector<float> one = FeedAll({shape, 1, 8}, total, capacity, true, 1, text);
  const std::vector<float> many = FeedAll({shape, 7, 8}, total, capacity, true, 2, text);
  CHECK(testing::RelativeL2Error<float, float>(many, one) <= 2e-6);
  // The last token sees the last 16 only. Rotation depends on distances: positions may begin at 0.
  const Sizes window = {{1, 4, 2}, capacity, 8};
  for (size_t s = 0; s < 2; ++s) {
    const float* const from = text.data() + ((s + 1) * total - capacity) * whole.Width();
    const std::vector<float> tail(from, from + capacity * whole.Width());
    const Exact exact = Reference(window, tail, std::vector<float>(capacity * whole.OutWidth()));
    for (size_t c = 0; c < whole.OutWidth(); ++c) {
      const double expected = exact.out[(capacity - 1) * whole.OutWidth() + c];
      CHECK(std::fabs(one[((s + 1) * total - 1) * whole.OutWidth() + c] - expected) < 1e-5);
    }
  }
}

TEST_CASE("cached attention op: a sequence has the same bits beside one whose cache is full") {
  const size_t steps = 8, capacity = 16;
  const Sizes two = {{2, 2, 2}, steps, 16}, one = {{1, 2, 2}, steps, 16};
  const std::vector<float> text = Random(two.Rows() * two.Width(), 5);
  const std::vector<float> first(text.begin(), text.begin() + text.size() / 2);
  CachedRunner both(two, capacity, true, 1, DType::kFloat32);
  CachedRunner alone(one, capacity, true, 1, DType::kFloat32);
  for (const int32_t length : {2, 2, 8}) {  // the second sequence has 8 of 16 more each time
    std::vector<float> beside = both.Run(text, {length, 8});
    beside.resize(beside.size() / 2);
    CHECK(beside == alone.Run(first, {length}));
  }
}

}  // namespace
}  // namespace lanewise::runtime

#include "kernels/embedding.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "kernels/reference/bfloat16.h"
#include "kernels/reference/embedding.h"
#include "tests/support/buffers.h"
#include "tests/support/targets.h"

namespace lanewise::kernels {
namespace {

using testing::GuardedMatrix;

TEST_CASE("embedding: copies and adds exactly, repeated ids in row order, any column range") {
  testing::ForEachTarget([] {
    std::mt19937 rng(7);
    for (size_t cols = 1; cols <= 67; ++cols) {
      CAPTURE(cols);
      constexpr size_t kRows = 23, kVocab = 5;  // every id is used several times
      GuardedMatrix table(kVocab, cols, cols % 3, cols % 4);
      GuardedMatrix y(kRows, cols, 2, 1), dy(kRows, cols, 1, 3), dtable(kVocab, cols, 2, cols % 5);
      table.FillNormal(rng);
      dy.FillNormal(rng);
      dtable.FillNormal(rng);
      std::vector<int32_t> ids(kRows);
      for (int32_t& id : ids) id = static_cast<int32_t>(rng() % kVocab);
      GuardedMatrix expected_y = y, expected = dtable, by_columns = dtable;
      reference::EmbeddingForward<float>(table.view(), ids, expected_y.view());
      reference::EmbeddingBackward<float>(ids, dy.view(), expected.view());

      EmbeddingForward(table.view(), ids, y.view());
      EmbeddingBackward(ids, dy.view(), dtable.view());
      CHECK(y.GuardsIntact());
      CHECK(dtable.GuardsIntact());
      CHECK(y.Doubles() == expected_y.Doubles());
      CHECK(dtable.Doubles() == expected.Doubles());

      std::vector<BFloat16> half(kVocab * cols);
      for (size_t r = 0; r < kVocab; ++r) {
        for (size_t c = 0; c < cols; ++c) {
          half[r * cols + c] = reference::Round(table.view().Row(r)[c]);
          table.view().Row(r)[c] = reference::Widen(half[r * cols + c]);
        }
      }
      reference::EmbeddingForward<float>(table.view(), ids, expected_y.view());
      EmbeddingForward(Mat<const BFloat16>{half.data(), kVocab, cols, cols}, ids, y.view());
      CHECK(y.GuardsIntact());
      CHECK(y.Doubles() == expected_y.Doubles());

      const size_t cut = cols / 3;
      EmbeddingBackward(ids, dy.view().Cols(0, cut), by_columns.view().Cols(0, cut));
      EmbeddingBackward(ids, dy.view().Cols(cut, cols - cut),
                        by_columns.view().Cols(cut, cols - cut));
      CHECK(by_columns.Doubles() == expected.Doubles());
    }
    EmbeddingForward(Mat<const float>{nullptr, 5, 8, 8}, {}, {nullptr, 0, 8, 8});
    EmbeddingBackward({}, {nullptr, 0, 8, 8}, {nullptr, 5, 8, 8});
  });
}

}  // namespace
}  // namespace lanewise::kernels

// What matmul fetches while its tiles compute: every line that will be read, and no other. A fault
// here would change no result, only the speed.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <set>
#include <vector>

#include "kernels/matmul/ahead.h"
#include "kernels/matmul/bf16_tile.h"

namespace lanewise::kernels::matmul {
namespace {

TEST_CASE("matmul: row by row, every line is fetched and no other") {
  constexpr size_t kRows = 4;
  alignas(64) static std::array<float, 600> memory;
  for (const size_t offset : {0, 1, 8, 15}) {
    for (const size_t stride : {96, 100}) {
      for (const size_t columns : {1, 2, 15, 16, 17, 33, 48}) {
        CAPTURE(offset);
        CAPTURE(stride);
        CAPTURE(columns);
        const bool aligned = offset == 0 && stride % 16 == 0;
        Ahead ahead(memory.data() + offset, stride, kRows, columns);
        const size_t fetches = (columns + (aligned ? 0 : 15) + 15) / 16;
        CHECK(ahead.Lines() == kRows * fetches);
        for (size_t row = 0; row < kRows; ++row) {
          std::set<size_t> lines, fetched;
          const size_t first = offset + row * stride;
          for (size_t i = first; i < first + columns; ++i) lines.insert(i / 16);
          for (size_t i = 0; i < fetches; ++i) {
            REQUIRE_FALSE(ahead.Done());
            fetched.insert(static_cast<size_t>(ahead.Next() - memory.data()) / 16);
            ahead.FetchLine();
          }
          CHECK(fetched == lines);
        }
        CHECK(ahead.Done());
        ahead.FetchLine();
        CHECK(ahead.Done());
        CHECK(ahead.Lines() == 0);
      }
    }
  }
  CHECK(Ahead().Done());
  CHECK(Ahead(memory.data(), 16, 3, 0).Done());
}

TEST_CASE("matmul: the steps of a bf16 tile share out what is fetched") {
  std::vector<float> memory(4096);
  for (const size_t lines_a_step : {1, 3}) {
    Ahead ahead(memory.data(), 64, 6, 64);
    Bf16Tile tile;
    tile.rows = tile.columns = 32;
    tile.next = memory.data();
    tile.next_row = 64;
    tile.ahead = &ahead;
    tile.ahead_lines = lines_a_step;
    for (size_t left = ahead.Lines(), k = 0; left > 0; k += kBf16Steps) {
      FetchBetween(tile, k);
      left -= lines_a_step;
      CHECK(ahead.Done() == (left == 0));
    }
  }
}

}  // namespace
}  // namespace lanewise::kernels::matmul

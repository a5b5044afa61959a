// What matmul fetches while its tiles compute: each line once, in order, and no more. A fault here
// would change no result, only the speed.
#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

#include "kernels/matmul/ahead.h"
#include "kernels/matmul/bf16_tile.h"

namespace lanewise::kernels::matmul {
namespace {

TEST_CASE("matmul: rows are fetched line by line") {
  std::vector<float> memory(400);
  for (const size_t columns : {1, 15, 16, 17, 33, 48}) {
    CAPTURE(columns);
    Ahead ahead = {.data = memory.data(), .stride = 100, .rows = 4, .columns = columns};
    const size_t lines = (columns + 15) / 16;
    CHECK(ahead.Lines() == 4 * lines);
    for (size_t row = 0; row < 4; ++row) {
      for (size_t line = 0; line < lines; ++line) {
        REQUIRE_FALSE(ahead.Done());
        CHECK(ahead.data + ahead.column == memory.data() + row * 100 + line * 16);
        ahead.FetchLine();
      }
    }
    CHECK(ahead.Done());
    ahead.FetchLine();
    CHECK(ahead.Done());
    CHECK(ahead.Lines() == 0);
  }
  CHECK(Ahead().Done());
}

TEST_CASE("matmul: the steps of a bf16 tile share out what is fetched") {
  std::vector<float> memory(4096);
  for (const size_t lines_a_step : {1, 3}) {
    Ahead ahead = {.data = memory.data(), .stride = 64, .rows = 6, .columns = 64};
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

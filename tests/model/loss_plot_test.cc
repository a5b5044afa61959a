#include "model/loss_plot.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string_view>

namespace lanewise::model {
namespace {

LossPlotData Training(int64_t steps, int64_t eval_every) {
  LossPlotData data{.title = "slot_rnn, 4 layers", .subtitle = "2.4M tokens"};
  for (int64_t s = 1; s <= steps; ++s) {
    const double loss = 1.5 + 2.5 / std::sqrt(static_cast<double>(s)) + (s % 7 == 0 ? 0.05 : 0.0);
    data.train.push_back({s, loss});
    if (s % eval_every == 0) data.validation.push_back({s, loss + 0.1});
  }
  return data;
}

size_t Count(std::string_view text, std::string_view word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++count;
  return count;
}

// Tags are closed in order, and no coordinate is a word.
void CheckDocument(const std::string& svg) {
  REQUIRE(svg.starts_with("<svg xmlns="));
  REQUIRE(svg.ends_with("</svg>\n"));
  CHECK(Count(svg, "nan") == 0);
  CHECK(Count(svg, "inf") == 0);
  std::vector<std::string> open;
  for (size_t at = svg.find('<'); at != svg.npos; at = svg.find('<', at + 1)) {
    const size_t end = svg.find('>', at);
    REQUIRE(end != svg.npos);
    if (svg[at + 1] == '/') {
      REQUIRE(!open.empty());
      CHECK(svg.substr(at + 2, end - at - 2) == open.back());
      open.pop_back();
    } else if (svg[end - 1] != '/') {
      open.push_back(svg.substr(at + 1, svg.find_first_of(" >", at) - at - 1));
    }
  }
  CHECK(open.empty());
}

TEST_CASE("a usual training: two curves, the best marked, values in the legend") {
  const LossPlotData data = Training(2000, 100);
  const std::string svg = RenderLossPlot(data);
  CheckDocument(svg);
  CHECK(Count(svg, ">slot_rnn, 4 layers<") == 2);  // shown, and as the document's title
  CHECK(Count(svg, ">2.4M tokens<") == 1);
  CHECK(Count(svg, ">2,000<") == 1);
  CHECK(Count(svg, "<circle") == 20 + 1);
  CHECK(Count(svg, ">best 1.656<") == 1);
  CHECK(Count(svg, ">validation 1.656<") == 1);
  CHECK(Count(svg, ">train 1.5") == 1);
  CHECK(Count(svg, "not finite") == 0);
}

TEST_CASE("the best evaluation is marked, not the last") {
  LossPlotData data = Training(1000, 100);
  data.validation.back().loss = 3;
  data.validation[3].loss = 1.25;
  const std::string svg = RenderLossPlot(data);
  CHECK(Count(svg, ">best 1.250<") == 1);
  CHECK(Count(svg, ">validation 3.000<") == 1);
}

TEST_CASE("short trainings: dots, since a curve of one point does not show") {
  LossPlotData data = Training(5, 5);
  CHECK(Count(RenderLossPlot(data), "<circle") == 5 + 1 + 1);
  data.train.resize(1);
  data.validation.clear();
  CheckDocument(RenderLossPlot(data));
  CHECK(Count(RenderLossPlot(data), "<circle") == 1);
  data.train.clear();
  data.validation = {{2000, 1.53}};
  CheckDocument(RenderLossPlot(data));
  CHECK(Count(RenderLossPlot(data), ">best 1.530<") == 1);
}

TEST_CASE("nothing to show, or nothing finite") {
  CheckDocument(RenderLossPlot({}));
  CHECK(Count(RenderLossPlot({}), "no finite loss yet") == 1);
  LossPlotData data;
  data.train = {{1, std::nan("")}, {2, std::numeric_limits<double>::infinity()}};
  data.validation = {{2, std::nan("")}};
  CheckDocument(RenderLossPlot(data));
  CHECK(Count(RenderLossPlot(data), "no finite loss yet") == 1);
}

TEST_CASE("what is not finite is a gap in the curve, and is said") {
  LossPlotData data = Training(100, 20);
  data.subtitle = "";  // has "4M" in it
  for (size_t i = 40; i < 50; ++i) data.train[i].loss = std::nan("");
  data.validation[1].loss = -std::numeric_limits<double>::infinity();
  const std::string svg = RenderLossPlot(data);
  CheckDocument(svg);
  CHECK(Count(svg, ">11 losses were not finite<") == 1);
  // Both training curves and the evaluations' start again behind their gaps.
  size_t again = 0;
  for (const char digit : std::string_view("0123456789"))
    again += Count(svg, std::string(1, digit) + "M");
  CHECK(again == 3);
}

TEST_CASE("absurd losses do not squeeze the rest") {
  LossPlotData data = Training(2000, 100);
  for (size_t i = 0; i < 20; ++i) data.train[i].loss = 1e300;
  data.train[900].loss = 1e5;
  const std::string svg = RenderLossPlot(data);
  CheckDocument(svg);
  CHECK(Count(svg, ">1.6<") == 1);  // a grid line of the usual range
  CHECK(Count(svg, "e+") == 0);
}

TEST_CASE("all losses equal, zero or negative") {
  for (const double loss : {0.0, 1.0, -2.0}) {
    LossPlotData data = Training(10, 5);
    for (LossPoint& p : data.train) p.loss = loss;
    for (LossPoint& p : data.validation) p.loss = loss;
    CheckDocument(RenderLossPlot(data));
    CHECK(Count(RenderLossPlot(data), ">-0") == 0);
  }
}

TEST_CASE("the picture's size does not grow with the steps; extremes are kept") {
  LossPlotData data = Training(200'000, 1'000);
  data.train[100'000].loss = 1.4;
  const std::string svg = RenderLossPlot(data);
  CheckDocument(svg);
  CHECK(svg.size() < 60'000);
  CHECK(Count(svg, ">100,000<") == 1);
}

TEST_CASE("titles are text, whatever is in them") {
  LossPlotData data = Training(10, 5);
  data.title = "<script> & \"co\"\x01";
  const std::string svg = RenderLossPlot(data);
  CheckDocument(svg);
  CHECK(Count(svg, "<script") == 0);
  CHECK(Count(svg, "&lt;script&gt; &amp; \"co\"<") == 2);
}

}  // namespace
}  // namespace lanewise::model

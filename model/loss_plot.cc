#include "model/loss_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>

namespace lanewise::model {
namespace {

constexpr double kWidth = 900, kHeight = 540;
constexpr double kLeft = 78, kRight = 24, kTop = 74, kBottom = 56;
constexpr size_t kColumns = 400;  // a curve has at most two points in each
constexpr const char* kTrainColor = "#1f6fb4";
constexpr const char* kValidationColor = "#d1540a";  // apart from blue also for color-blind eyes
constexpr const char* kInk = "#24292f";
constexpr const char* kFaintInk = "#59636e";
constexpr const char* kGrid = "#e3e7ec";

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();

using Points = std::vector<LossPoint>;

template <typename... Args>
void Print(std::string* out, const char* format, Args... args) {
  char text[512];
  const int size = std::snprintf(text, sizeof(text), format, args...);
  if (size > 0) out->append(text, std::min(sizeof(text) - 1, static_cast<size_t>(size)));
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (static_cast<unsigned char>(c) >= 32) {
      out += c;
    }
  }
  return out;
}

// 1234567 as 1,234,567.
std::string Grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

// What is not finite becomes NaN, which is a gap in a curve. A thousand nats are as bad as more.
Points Cleaned(const Points& points) {
  constexpr double kMost = 1000;
  Points clean;
  for (const LossPoint& p : points) {
    if (p.step < 0) continue;
    clean.push_back({p.step, std::isfinite(p.loss) ? std::clamp(p.loss, -kMost, kMost) : kGap});
  }
  return clean;
}

bool IsGap(const LossPoint& point) { return std::isnan(point.loss); }

// The losses, without gaps, sorted.
std::vector<double> Sorted(const Points& points) {
  std::vector<double> losses;
  for (const LossPoint& p : points) {
    if (!IsGap(p)) losses.push_back(p.loss);
  }
  std::sort(losses.begin(), losses.end());
  return losses;
}

// Mean over the steps around each: a fifth of what was done before it (the start falls steeply), at
// most a thirtieth of all. Single losses above `highest` count as that.
Points Smoothed(const Points& points, double highest) {
  std::vector<double> sum(points.size() + 1), count(points.size() + 1);
  for (size_t i = 0; i < points.size(); ++i) {
    const bool gap = IsGap(points[i]);
    sum[i + 1] = sum[i] + (gap ? 0 : std::min(points[i].loss, highest));
    count[i + 1] = count[i] + (gap ? 0 : 1);
  }
  Points smooth;
  for (size_t i = 0; i < points.size(); ++i) {
    const size_t half = std::min(i / 10, points.size() / 60);
    const size_t begin = i - half, end = std::min(points.size(), i + half + 1);
    const double mean = (sum[end] - sum[begin]) / (count[end] - count[begin]);
    smooth.push_back({points[i].step, IsGap(points[i]) ? kGap : mean});
  }
  return smooth;
}

// The distance of grid lines: 1, 2 or 5 times a power of ten, so that about `wanted` are in
// `range`.
double NiceDistance(double range, double wanted) {
  const double rough = range / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= 0.7 * rough) return factor * power;
  }
  return 10 * power;
}

struct Axes {
  double last_step = 1;
  double lowest = 0, highest = 1;
  double distance = 1;  // of the losses' grid lines

  double X(double step) const {
    const double width = kWidth - kLeft - kRight;
    return kLeft + width * step / last_step;
  }
  double Y(double loss) const {
    const double share = (loss - lowest) / (highest - lowest);
    // Far outside is as good as outside, and prints.
    return kHeight - kBottom - (kHeight - kTop - kBottom) * std::clamp(share, -1.0, 2.0);
  }
};

// The losses that matter: all but the most extreme fiftieth of the steps (the first fall from the
// chance level within a few), and the evaluations likewise.
void FitLosses(const Points& train, const Points& validation, Axes* axes) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Points* points : {&train, &validation}) {
    const std::vector<double> losses = Sorted(*points);
    if (losses.empty()) continue;
    const size_t rare = losses.size() / 50;
    low = std::min(low, losses[rare]);
    high = std::max(high, losses[losses.size() - 1 - rare]);
  }
  if (!(low <= high)) {
    low = 0;
    high = 1;
  }
  const double largest = std::max({std::fabs(low), std::fabs(high), 0.1});
  const double margin = std::max(0.04 * (high - low), 0.03 * largest);
  axes->highest = high + margin;
  axes->lowest = low >= 0 ? std::max(0.0, low - margin) : low - margin;
  axes->distance = NiceDistance(axes->highest - axes->lowest, 6);
}

void FitSteps(const Points& train, const Points& validation, Axes* axes) {
  int64_t last = 1;
  for (const Points* points : {&train, &validation}) {
    if (!points->empty()) last = std::max(last, points->back().step);
  }
  axes->last_step = static_cast<double>(last);
}

// ---- drawing

void Label(std::string* svg, double x, double y, const char* anchor, const std::string& text,
           const char* color = kFaintInk, int size = 13) {
  Print(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\" font-size=\"%d\">", x, y,
        anchor, color, size);
  *svg += Escaped(text) + "</text>\n";
}

void DrawLossGrid(std::string* svg, const Axes& axes) {
  int digits = 0;
  while (digits < 9 && std::fabs(axes.distance * std::pow(10.0, digits) -
                                 std::round(axes.distance * std::pow(10.0, digits))) > 1e-6) {
    ++digits;
  }
  const double first = std::ceil(axes.lowest / axes.distance - 1e-9);
  for (double i = first; i * axes.distance <= axes.highest + 1e-9 * axes.distance; ++i) {
    const double y = axes.Y(i * axes.distance);
    Print(svg, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\"/>\n", kLeft, y, kWidth - kRight, kGrid);
    char text[40];
    std::snprintf(text, sizeof(text), "%.*f", digits, i * axes.distance + 0.0);  // not -0
    Label(svg, kLeft - 9, y + 4.5, "end", text);
  }
}

void DrawStep(std::string* svg, const Axes& axes, int64_t step) {
  const double x = axes.X(static_cast<double>(step));
  const double y = kHeight - kBottom;
  Print(svg, "<path d=\"M%.1f %.1fv5\" stroke=\"%s\"/>\n", x, y, kFaintInk);
  const std::string text = Grouped(step);
  const double half = 4.2 * static_cast<double>(text.size());
  Label(svg, std::min(x, kWidth - 4 - half), y + 20, "middle", text);
}

void DrawStepTicks(std::string* svg, const Axes& axes) {
  const auto last = static_cast<int64_t>(axes.last_step);
  const auto distance =
      std::max<int64_t>(1, std::llround(NiceDistance(static_cast<double>(last), 8)));
  for (int64_t step = 0; step <= last; step += distance) DrawStep(svg, axes, step);
}

// Where a column of the picture has many points, its lowest and highest stand for all of them, in
// their order.
Points Thinned(const Points& points, const Axes& axes) {
  if (points.size() <= 2 * kColumns) return points;
  Points thin;
  const double width = (kWidth - kLeft - kRight) / static_cast<double>(kColumns);
  const auto column = [&](const LossPoint& p) {
    return static_cast<int64_t>((axes.X(static_cast<double>(p.step)) - kLeft) / width);
  };
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin + 1, low = begin, high = begin;
    for (; end < points.size() && IsGap(points[end]) == IsGap(points[begin]) &&
           column(points[end]) == column(points[begin]);
         ++end) {
      if (points[end].loss < points[low].loss) low = end;
      if (points[end].loss > points[high].loss) high = end;
    }
    thin.push_back(points[std::min(low, high)]);
    if (low != high) thin.push_back(points[std::max(low, high)]);
    begin = end;
  }
  return thin;
}

void DrawCurve(std::string* svg, const Axes& axes, const Points& points, const char* color,
               double width, double opacity) {
  if (points.size() < 2) return;
  *svg += "<path d=\"";
  bool gap = true;
  for (const LossPoint& p : points) {
    if (!IsGap(p)) {
      Print(svg, "%s%.1f %.1f", gap ? "M" : "L", axes.X(static_cast<double>(p.step)),
            axes.Y(p.loss));
    }
    gap = IsGap(p);
  }
  Print(svg, "\" stroke=\"%s\" stroke-width=\"%.1f\" stroke-opacity=\"%.2f\"/>\n", color, width,
        opacity);
}

// Only where they are few enough to be told apart, or one alone would not show as a curve.
void DrawDots(std::string* svg, const Axes& axes, const Points& points, const char* color,
              double radius) {
  if (points.size() > 60) return;
  for (const LossPoint& p : points) {
    if (IsGap(p)) continue;
    Print(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\"/>\n",
          axes.X(static_cast<double>(p.step)), axes.Y(p.loss), radius, color);
  }
}

const LossPoint* Lowest(const Points& points) {
  const LossPoint* lowest = nullptr;
  for (const LossPoint& p : points) {
    if (!IsGap(p) && (lowest == nullptr || p.loss < lowest->loss)) lowest = &p;
  }
  return lowest;
}

double LastLoss(const Points& points) {
  const auto last = std::find_if_not(points.rbegin(), points.rend(), IsGap);
  return last == points.rend() ? kGap : last->loss;
}

// A ring, and the value beside it on the side where there is room.
void DrawBest(std::string* svg, const Axes& axes, const LossPoint& best) {
  const double x = axes.X(static_cast<double>(best.step)), y = axes.Y(best.loss);
  Print(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"6.5\" stroke=\"%s\" stroke-width=\"2\"/>\n", x, y,
        kValidationColor);
  char text[64];
  std::snprintf(text, sizeof(text), "best %.3f", best.loss);
  const bool left = x > kWidth / 2;
  const bool above = y > kTop + 30;  // training losses are mostly below
  *svg += "<g stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\" font-weight=\"bold\">";
  Label(svg, x + (left ? -4 : 4), above ? y - 14 : y + 24, left ? "end" : "start", text,
        kValidationColor);
  *svg += "</g>\n";
}

struct LegendEntry {
  std::string text;
  const char* color;
};

// In one row at the right, above the picture.
void DrawLegend(std::string* svg, std::span<const LegendEntry> entries) {
  double x = kWidth - kRight;
  for (size_t i = entries.size(); i-- > 0;) {
    Label(svg, x, kTop - 14, "end", entries[i].text, kInk);
    x -= 7.2 * static_cast<double>(entries[i].text.size()) + 8;
    Print(svg, "<path d=\"M%.1f %.1fh-20\" stroke=\"%s\" stroke-width=\"3\"/>\n", x, kTop - 18.5,
          entries[i].color);
    x -= 40;
  }
}

std::string Named(const char* name, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%s %.3f", name, value);
  return text;
}

void DrawFrame(std::string* svg, const LossPlotData& data, const Axes& axes) {
  Print(
      svg,
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
      "fill=\"none\" font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, "
      "sans-serif\">\n",
      kWidth, kHeight, kWidth, kHeight);
  *svg += "<title>" + Escaped(data.title) + "</title>\n";
  // A background of its own, so that the picture is also readable in a dark viewer.
  Print(svg, "<rect width=\"%g\" height=\"%g\" rx=\"6\" fill=\"#ffffff\"/>\n", kWidth, kHeight);
  *svg += "<g font-weight=\"bold\">";
  Label(svg, 20, 30, "start", data.title, kInk, 17);
  *svg += "</g>";
  Label(svg, 20, 50, "start", data.subtitle);
  DrawLossGrid(svg, axes);
  DrawStepTicks(svg, axes);
  const double base = kHeight - kBottom;
  Print(svg, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\"/>\n", kLeft, base, kWidth - kRight,
        kFaintInk);
  Label(svg, (kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", "step");
  Print(svg, "<g transform=\"translate(20 %.1f) rotate(-90)\">", (kTop + base) / 2);
  Label(svg, 0, 0, "middle", "cross-entropy (nats per token)");
  *svg += "</g>\n";
}

// Says what a reader would otherwise take for a hole in the picture.
void DrawGaps(std::string* svg, const Points& train, const Points& validation, bool any) {
  if (!any) {
    return Label(svg, kWidth / 2, kHeight / 2, "middle", "no finite loss yet", kFaintInk, 16);
  }
  const auto gaps = std::count_if(train.begin(), train.end(), IsGap) +
                    std::count_if(validation.begin(), validation.end(), IsGap);
  if (gaps == 0) return;
  Label(svg, kWidth - kRight, kHeight - 14, "end",
        Grouped(gaps) + (gaps == 1 ? " loss was" : " losses were") + " not finite");
}

}  // namespace

std::string RenderLossPlot(const LossPlotData& data) {
  const Points train = Cleaned(data.train);
  const Points validation = Cleaned(data.validation);
  Axes axes;
  FitSteps(train, validation, &axes);
  FitLosses(train, validation, &axes);
  const Points smooth = Smoothed(train, 2 * axes.highest - axes.lowest);  // not drawn that high

  std::string svg;
  DrawFrame(&svg, data, axes);
  Print(&svg,
        "<clipPath id=\"inside\"><rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/></clipPath>\n",
        kLeft, kTop, kWidth - kLeft - kRight + 8, kHeight - kTop - kBottom);
  svg += "<g clip-path=\"url(#inside)\" stroke-linejoin=\"round\">\n";
  DrawCurve(&svg, axes, Thinned(train, axes), kTrainColor, 1, 0.3);
  DrawCurve(&svg, axes, Thinned(smooth, axes), kTrainColor, 2, 1);
  DrawDots(&svg, axes, train, kTrainColor, 2.5);
  DrawCurve(&svg, axes, Thinned(validation, axes), kValidationColor, 2, 1);
  DrawDots(&svg, axes, validation, kValidationColor, 3.5);
  svg += "</g>\n";

  std::vector<LegendEntry> legend;
  const LossPoint* best = Lowest(validation);
  if (Lowest(train) != nullptr) legend.push_back({Named("train", LastLoss(smooth)), kTrainColor});
  if (best != nullptr) {
    DrawBest(&svg, axes, *best);
    legend.push_back({Named("validation", LastLoss(validation)), kValidationColor});
  }
  DrawLegend(&svg, legend);
  DrawGaps(&svg, train, validation, !legend.empty());
  return svg + "</svg>\n";
}

}  // namespace lanewise::model

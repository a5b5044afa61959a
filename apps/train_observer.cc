#include "apps/train_observer.h"

#include <algorithm>
#include <vector>

#include "apps/format.h"
#include "apps/terminal.h"

namespace lanewise::apps {

namespace {

using Clock = std::chrono::steady_clock;

// Without a terminal: a line at the start, then one of steps this often.
constexpr std::chrono::seconds kPlainInterval(10);

// Of a report of a step or an evaluation.
std::string Fraction(const auto& report) {
  return std::to_string(report.step) + "/" + std::to_string(report.steps);
}

std::string MfuText(double mfu) {
  return mfu > 0 ? FormatFixed(100 * mfu, 0) + "% MFU" : std::string();
}

// The sample, indented, in lines that fit.
void PrintSample(const std::string& sample) {
  const size_t width = std::max<size_t>(std::min<size_t>(TerminalColumns(), 100), 20) - 4;
  const std::string text = Printable(sample);
  size_t lines = 0;
  for (size_t at = 0; at < text.size() && lines < 6;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    while (!line.empty() && lines < 6) {
      const std::string part = CutColumns(line, width);
      Stderr().Line("  | " + part);
      line.remove_prefix(part.size());
      ++lines;
    }
    at = end + 1;
  }
}

}  // namespace

void TrainPrinter::OnNotice(const std::string& sentence) { Stderr().Line("Note: " + sentence); }

void TrainPrinter::OnStep(const model::StepReport& report) {
  last_ = report;
  if (report.skipped) {
    Stderr().Line("Note: step " + std::to_string(report.step) +
                  ": the loss or its gradient is not finite; the step is skipped");
    return;
  }
  smooth_rate_ = smooth_rate_ == 0 ? report.tokens_per_second
                                   : 0.9 * smooth_rate_ + 0.1 * report.tokens_per_second;
  if (Stderr().live()) {
    const bool narrow = TerminalColumns() < 40;
    const std::string loss = FormatFixed(last_.smooth_loss, 3), rate = FormatCount(smooth_rate_);
    Stderr().Progress({narrow ? Fraction(report) : "step " + Fraction(report),
                       narrow ? loss : "loss " + loss, narrow ? rate + "/s" : rate + " tokens/s",
                       MfuText(SmoothMfu()), FormatDuration(report.seconds_left) + " left"},
                      report.step == 1 || report.step == report.steps);
    return;
  }
  const auto now = Clock::now();
  if (any_ && now - printed_ < kPlainInterval) return;
  any_ = true;
  printed_ = now;
  PlainLine();
}

// Of the smoothed speed.
double TrainPrinter::SmoothMfu() const {
  return last_.tokens_per_second > 0 ? last_.mfu / last_.tokens_per_second * smooth_rate_ : 0;
}

void TrainPrinter::PlainLine() {
  const std::string mfu = MfuText(SmoothMfu());
  Stderr().Line("step " + Fraction(last_) + "  loss " + FormatFixed(last_.smooth_loss, 3) + "  " +
                FormatCount(smooth_rate_) + " tokens/s" + (mfu.empty() ? "" : "  " + mfu) + "  " +
                FormatDuration(last_.seconds_left) + " left");
}

void TrainPrinter::OnEvaluateProgress(int64_t step, double done) {
  if (!Stderr().live()) return;
  Stderr().Progress({"step " + std::to_string(step),
                     "evaluating " + FormatFixed(100 * done, 0) + "%", evaluation_.At(done)});
}

void TrainPrinter::OnEvaluate(const model::EvalReport& report) {
  std::string line = "step " + Fraction(report) + "  train " + FormatFixed(report.train_loss, 3) +
                     "  validation " + FormatFixed(report.val_loss, 4) + " nats";
  if (report.val_bits_per_byte > 0) {
    line += ", " + FormatFixed(report.val_bits_per_byte, 4) + " bits/byte";
  }
  if (report.whole) {
    line += " (whole split)";
  } else if (report.last) {
    line += " (" + FormatCount(static_cast<double>(report.tokens)) + " tokens of the split)";
  }
  if (report.best) line += "  best";
  line += "  " + FormatDuration(report.seconds);
  Stderr().Line(line);
  PrintSample(report.sample);
  printed_ = Clock::now();
}

}  // namespace lanewise::apps

#include "model/run_log.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>

#include "model/error.h"

namespace lanewise::model {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kBlock = size_t{1} << 16;
constexpr size_t kLongestLine = size_t{1} << 20;  // what is longer is no record

// Enough digits for people; losses keep all of theirs, so that runs can be compared bit for bit.
double Rounded(double value, int digits) {
  const double unit = std::pow(10.0, digits);
  return std::isfinite(value) ? std::round(value * unit) / unit : value;
}

// One record; a sample may hold bytes that are no UTF-8.
std::string Line(const OrderedJson& record) {
  return record.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

// A step's record, put together without allocating: training steps do not.
class StepLine {
 public:
  void Add(std::string_view text) { used_ += text.copy(text_ + used_, sizeof(text_) - used_); }
  template <typename Number>
  void Add(std::string_view field, Number value) {
    Add(field);
    if constexpr (std::is_floating_point_v<Number>) {
      if (!std::isfinite(value)) return Add("null");
    }
    const std::to_chars_result result = std::to_chars(text_ + used_, text_ + sizeof(text_), value);
    if (result.ec == std::errc()) used_ = static_cast<size_t>(result.ptr - text_);
  }
  std::string_view text() const { return {text_, used_}; }

 private:
  char text_[512];  // eight names and numbers of up to 24 digits take 330
  size_t used_ = 0;
};

OrderedJson OrNull(const std::optional<double>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

bool IsStep(const Json& record) { return record.contains("step") && record.contains("loss"); }
bool IsEvaluation(const Json& record) {
  return record.contains("step") && record.contains("val_loss");
}
bool IsEnd(const Json& record) { return record.contains("peak_memory_bytes"); }

std::optional<double> NumberOf(const Json& record, const char* field) {
  const auto found = record.find(field);
  if (found == record.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}
double NumberOr(const Json& record, const char* field, double otherwise) {
  return NumberOf(record, field).value_or(otherwise);
}

uint64_t CountOr0(const Json& record, const char* field) {
  return static_cast<uint64_t>(std::clamp(NumberOr(record, field, 0), 0.0, 1e18));
}

FinishReport EndOf(const Json& record) {
  const auto finished = record.find("finished");
  return {.step = static_cast<int64_t>(CountOr0(record, "steps")),
          .tokens = CountOr0(record, "tokens"),
          .seconds = NumberOr(record, "seconds", 0),
          .train_loss = NumberOf(record, "train_loss"),
          .val_loss = NumberOf(record, "final_val_loss"),
          .val_bits_per_byte = NumberOf(record, "final_val_bits_per_byte"),
          .last_val_loss = std::nullopt,
          .best_val_loss = NumberOf(record, "best_val_loss"),
          .peak_memory_bytes = CountOr0(record, "peak_memory_bytes"),
          .finished = finished != record.end() && finished->is_boolean() && finished->get<bool>()};
}

// -1 for what is none.
int64_t StepOf(const Json& record) {
  constexpr uint64_t kMost = uint64_t{1} << 50;
  const auto found = record.find("step");
  const bool number = found != record.end() && found->is_number_unsigned();
  return number && found->get<uint64_t>() <= kMost ? found->get<int64_t>() : -1;
}

// Calls fn(line, record) for each complete line that holds an object; the line has its end. The log
// is read in pieces: that of a long training may be larger than the memory.
template <typename Fn>
void ForEachRecord(FileSystem& files, const std::string& path, Fn fn) {
  File file(files, path, OpenMode::kRead);
  std::vector<char> block(kBlock);
  std::string text;  // of lines that have not been read to their end
  while (const size_t count = file.Read(block.data(), block.size())) {
    text.append(block.data(), count);
    size_t begin = 0, end = 0;
    for (; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line = std::string_view(text).substr(begin, end + 1 - begin);
      const Json record = Json::parse(line.begin(), line.end(), nullptr, false);
      if (record.is_object()) fn(line, record);
    }
    text.erase(0, begin);
    if (text.size() > kLongestLine) text.clear();
  }
}

// Writes what a log that goes on after `last_step` begins with, before it is opened for the rest.
std::string Begin(FileSystem& files, const std::string& path, int64_t last_step) {
  WriteFileAtomically(files, path, [&](File& file) {
    if (last_step <= 0 || !IsFile(files, path)) return;
    std::string kept;
    ForEachRecord(files, path, [&](std::string_view line, const Json& record) {
      const int64_t step = StepOf(record);
      const bool event = IsStep(record) || IsEvaluation(record);
      if (event && step >= 0 && step <= last_step) kept += line;
      if (kept.size() < kBlock) return;
      file.Write(kept);
      kept.clear();
    });
    file.Write(kept);
  });
  return path;
}

}  // namespace

RunLog::RunLog(FileSystem& files, const std::string& path, int64_t last_step)
    : file_(files, Begin(files, path, last_step), OpenMode::kAppend) {}

void RunLog::Step(const StepReport& report) {
  StepLine line;
  line.Add("{\"step\":", report.step);
  line.Add(",\"loss\":", report.loss);
  line.Add(",\"lr\":", report.lr);
  line.Add(",\"grad_norm\":", report.grad_norm);
  line.Add(",\"tokens\":", report.tokens);
  line.Add(",\"tokens_per_second\":", Rounded(report.tokens_per_second, 1));
  line.Add(",\"mfu\":", Rounded(report.mfu, 4));
  line.Add(",\"seconds\":", Rounded(report.seconds, 4));
  line.Add(report.skipped ? ",\"skipped\":true}\n" : "}\n");
  file_.Write(line.text());
}

void RunLog::Evaluate(const EvalReport& report) {
  OrderedJson record = {{"step", report.step},
                        {"val_loss", report.val_loss},
                        {"val_bits_per_byte", report.val_bits_per_byte}};
  record["val_tokens"] = report.tokens;
  if (report.whole) record["whole"] = true;
  if (report.best) record["best"] = true;
  if (!report.sample.empty()) record["sample"] = report.sample;
  file_.Write(Line(record));
}

void RunLog::Finish(const FinishReport& report) {
  file_.Write(Line({{"steps", report.step},
                    {"tokens", report.tokens},
                    {"seconds", Rounded(report.seconds, 4)},
                    {"train_loss", OrNull(report.train_loss)},
                    {"final_val_loss", OrNull(report.val_loss)},
                    {"final_val_bits_per_byte", OrNull(report.val_bits_per_byte)},
                    {"best_val_loss", OrNull(report.best_val_loss)},
                    {"peak_memory_bytes", report.peak_memory_bytes},
                    {"finished", report.finished}}));
}

RunLogContent ReadRunLog(FileSystem& files, const std::string& path) {
  RunLogContent content;
  if (!IsFile(files, path)) return content;
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  ForEachRecord(files, path, [&](std::string_view, const Json& record) {
    const int64_t step = StepOf(record);
    if (IsEnd(record)) {
      content.end = EndOf(record);
    } else if (step >= 0 && IsStep(record)) {
      content.train.push_back({step, NumberOr(record, "loss", kNan)});
      content.last_step = step;
      content.tokens = CountOr0(record, "tokens");
      content.seconds = NumberOr(record, "seconds", content.seconds);
    } else if (step >= 0 && IsEvaluation(record)) {
      // The last of several at one step covers the most text.
      if (!content.validation.empty() && content.validation.back().step == step) {
        content.validation.pop_back();
      }
      content.validation.push_back({step, NumberOr(record, "val_loss", kNan)});
    }
  });
  return content;
}

}  // namespace lanewise::model

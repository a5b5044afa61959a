#include "apps/terminal.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "apps/console.h"
#include "apps/format.h"
#include "apps/signals.h"
#include "model/error.h"

namespace lanewise::apps {

namespace {

// 0, or the errno.
int WriteAll(int stream, std::string_view bytes) {
  while (!bytes.empty()) {
    const int64_t written = WriteStream(stream, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

// What was read beyond the line that was asked for.
std::string& InputBuffer() {
  static std::string buffer;
  return buffer;
}

// False at the end of the input, or when a signal asks for a stop.
bool FillInputBuffer() {
  char block[1 << 16];
  for (;;) {
    if (StopSignal().load() != 0) return false;
    const int64_t size = ReadStream(block, sizeof(block));
    if (size > 0) {
      InputBuffer().append(block, static_cast<size_t>(size));
      return true;
    }
    if (size == 0) return false;
    if (errno == EIO && StopSignal().load() != 0) return false;  // of a terminal that is closed
    if (errno != EINTR) {
      throw model::IoError(std::string("read standard input: ") + std::strerror(errno), errno);
    }
  }
}

}  // namespace

void WriteOutput(std::string_view bytes) {
  const int error = WriteAll(kOutput, bytes);
  if (error == EPIPE) throw PipeClosed();
  // Of a terminal that is closed: the signal that said so ends the program, in order.
  if (error == EIO && StopSignal().load() != 0) return;
  if (error != 0) {
    throw model::IoError(std::string("write standard output: ") + std::strerror(error), error);
  }
}

void WriteJson(const model::Json& document, int indent) {
  WriteOutput(document.dump(indent, ' ', false, model::Json::error_handler_t::replace) + "\n");
}

std::string ReadInput() {
  while (FillInputBuffer()) {
  }
  return std::exchange(InputBuffer(), {});
}

std::optional<std::string> ReadInputLine() {
  size_t searched = 0;
  for (;;) {
    std::string& buffer = InputBuffer();
    const size_t end = buffer.find('\n', searched);
    if (end != std::string::npos) {
      std::string line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return line;
    }
    searched = buffer.size();
    if (!FillInputBuffer()) break;
  }
  if (InputBuffer().empty() || StopSignal().load() != 0) return std::nullopt;
  return std::exchange(InputBuffer(), {});
}

bool InputIsTerminal() { return IsTerminal(kInput); }

bool MessagesAreOnTerminal() { return IsTerminal(kMessages); }

bool ColorAllowed() {
  return Environment("NO_COLOR").value_or("").empty() && ShowsColor(kMessages);
}

size_t TerminalColumns() {
  if (const size_t columns = ColumnsOf(kMessages); columns > 0) return columns;
  const long value = std::strtol(Environment("COLUMNS").value_or("").c_str(), nullptr, 10);
  return value > 0 && value < 10000 ? static_cast<size_t>(value) : 80;
}

void Messages::Line(std::string_view line) {
  if (!quiet_) Always(line);
}

void Messages::Always(std::string_view line) {
  ClearProgress();
  WriteAll(kMessages, std::string(line) + "\n");
}

void Messages::Prompt(std::string_view text) {
  ClearProgress();
  if (!quiet_) WriteAll(kMessages, text);
}

void Messages::Error(std::string_view message) {
  Always((ColorAllowed() ? "\033[1;31merror:\033[0m " : "error: ") + std::string(message));
}

void Messages::Progress(const std::vector<std::string>& fields, bool now) {
  if (!live()) return;
  const auto time = std::chrono::steady_clock::now();
  if (!now && time - last_ < std::chrono::milliseconds(100)) return;
  last_ = time;
  const size_t width = std::max<size_t>(TerminalColumns(), 2) - 1;  // no wrap at the last column
  std::string line;
  for (const std::string& field : fields) {
    if (field.empty()) continue;
    const size_t needed = CountColumns(line) + (line.empty() ? 0 : 2) + CountColumns(field);
    if (needed > width && !line.empty()) break;
    line += (line.empty() ? "" : "  ") + field;
  }
  line = CutColumns(line, width);
  const size_t columns = CountColumns(line);
  const size_t blank = std::min(shown_, width) > columns ? std::min(shown_, width) - columns : 0;
  // Spaces over what is left of the line before need no control sequence, so any terminal will do.
  WriteAll(kMessages, "\r" + line + std::string(blank, ' ') + std::string(blank, '\b'));
  shown_ = columns;
}

void Messages::ClearProgress() {
  if (shown_ == 0) return;
  const size_t width = std::min(shown_, std::max<size_t>(TerminalColumns(), 2) - 1);
  WriteAll(kMessages, "\r" + std::string(width, ' ') + "\r");
  shown_ = 0;
}

std::string TimeLeft::At(double done) {
  const auto now = std::chrono::steady_clock::now();
  if (done < last_done_) {
    begin_ = now;
    begin_done_ = done;
  }
  last_done_ = done;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  if (seconds < 1 || done <= begin_done_) return "";
  return FormatDuration(seconds * (1 - done) / (done - begin_done_)) + " left";
}

Messages& Stderr() {
  static Messages instance;
  return instance;
}

}  // namespace lanewise::apps

#include "apps/format.h"

#include <cmath>
#include <cstdio>

namespace lanewise::apps {

namespace {

template <typename... Args>
std::string Print(const char* format, Args... args) {
  char buffer[64];
  const int length = std::snprintf(buffer, sizeof(buffer), format, args...);
  return std::string(buffer, static_cast<size_t>(length < 63 ? length : 63));
}

bool ContinuesSequence(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string FormatShort(double value) { return Print("%.6g", value); }

std::string FormatFixed(double value, int decimals) { return Print("%.*f", decimals, value); }

std::string FormatFloat(float value) { return Print("%.9g", static_cast<double>(value)); }

std::string FormatDouble(double value) { return Print("%.17g", value); }

std::string FormatCount(double value) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P"};
  size_t unit = 0;
  // A speed of less than one a second is not none.
  if (std::fabs(value) < 10 && value != std::trunc(value)) return Print("%.2g", value);
  while (std::fabs(value) >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || std::fabs(value) >= 99.95 ? 0
                       : std::fabs(value) >= 9.995            ? 1
                                                              : 2;
  return FormatFixed(value, decimals) + kUnits[unit];
}

std::string FormatInteger(uint64_t value) {
  std::string digits = std::to_string(value);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string FormatNumber(uint64_t value, std::string_view noun) {
  return FormatInteger(value) + " " + std::string(noun) + (value == 1 ? "" : "s");
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0) || std::isinf(seconds)) return "?";
  if (seconds > 1e10) return FormatCount(seconds / 31'557'600) + " years";
  if (seconds < 9.95) return FormatFixed(seconds, 1) + "s";
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) {
    return Print("%um %02us", static_cast<unsigned>(whole / 60), static_cast<unsigned>(whole % 60));
  }
  if (whole < 48 * 3600) {
    return Print("%uh %02um", static_cast<unsigned>(whole / 3600),
                 static_cast<unsigned>(whole / 60 % 60));
  }
  return Print("%ud %02uh", static_cast<unsigned>(whole / 86400),
               static_cast<unsigned>(whole / 3600 % 24));
}

std::string ShellQuoted(std::string_view word) {
  if (word.starts_with('-')) return ShellQuoted("./" + std::string(word));  // no option
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(word);
  }
#if defined(_WIN32)
  return '"' + std::string(word) + '"';  // no name of a file has one in it
#else
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
#endif
}

std::string Printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xC2 ? 0
                          : lead < 0xE0 ? 2
                          : lead < 0xF0 ? 3
                          : lead < 0xF5 ? 4
                                        : 0;
    bool valid = length > 0 && at + length <= text.size() && lead != 0x7F;
    if (length == 1) valid = valid && (lead >= 0x20 || lead == '\n');
    for (size_t i = 1; valid && i < length; ++i) valid = ContinuesSequence(text[at + i]);
    // U+0080 to U+009F are controls too.
    if (length == 2 && lead == 0xC2 && valid)
      valid = static_cast<unsigned char>(text[at + 1]) >= 0xA0;
    out += valid ? text.substr(at, length) : std::string_view(".");
    at += valid ? length : 1;
  }
  return out;
}

std::string Wrap(std::string_view text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  bool first_word = true;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\n') {
      out += '\n' + std::string(indent, ' ');
      column = indent;
      first_word = true;
      ++at;
      continue;
    }
    if (text[at] == ' ') {
      ++at;
      continue;
    }
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    const size_t columns = CountColumns(word);
    if (!first_word && column + 1 + columns > width) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
      first_word = true;
    }
    if (!first_word) {
      out += ' ';
      ++column;
    }
    out += word;
    column += columns;
    first_word = false;
    at = end;
  }
  return out;
}

std::string CutColumns(std::string_view text, size_t width) {
  size_t columns = 0, at = 0;
  while (at < text.size()) {
    if (!ContinuesSequence(text[at])) {
      if (columns == width) break;
      ++columns;
    }
    ++at;
  }
  return std::string(text.substr(0, at));
}

size_t CountColumns(std::string_view text) {
  size_t columns = 0;
  for (const char c : text) columns += ContinuesSequence(c) ? 0 : 1;
  return columns;
}

}  // namespace lanewise::apps

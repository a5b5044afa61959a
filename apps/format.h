// Numbers as people read them.
#ifndef LANEWISE_APPS_FORMAT_H_
#define LANEWISE_APPS_FORMAT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace lanewise::apps {

std::string FormatShort(double value);                // "0.003", "1e-08": up to 6 digits
std::string FormatFixed(double value, int decimals);  // "1.5203"
std::string FormatFloat(float value);                 // 9 significant digits: the same float again
std::string FormatDouble(double value);               // 17
std::string FormatCount(double value);                // "4.2M", "812", "35.1k"
std::string FormatInteger(uint64_t value);            // "1,003,854"
std::string FormatNumber(uint64_t value, std::string_view noun);  // "1 step", "1,200 steps"
std::string FormatDuration(double seconds);                       // "48s", "12m 05s", "3h 07m"

// As a shell takes it back: quoted where needed.
std::string ShellQuoted(std::string_view word);
// Text of a model or file for a terminal: control characters and broken UTF-8 become dots.
std::string Printable(std::string_view text);

// Words of `text` in lines of at most `width` columns, each after the first with `indent` spaces
// before it.
std::string Wrap(std::string_view text, size_t indent, size_t width);

// The first `width` columns of UTF-8 text (a code point counts as one).
std::string CutColumns(std::string_view text, size_t width);
size_t CountColumns(std::string_view text);

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_FORMAT_H_

// UTF-8 and the UTF-16 of Windows calls. What is neither becomes U+FFFD.
#ifndef LANEWISE_MODEL_WIDE_H_
#define LANEWISE_MODEL_WIDE_H_
#ifdef _WIN32

#include <string>
#include <string_view>

namespace lanewise::model {

std::wstring Wide(std::string_view text);
std::string Narrow(std::wstring_view wide);

}  // namespace lanewise::model

#endif  // _WIN32
#endif  // LANEWISE_MODEL_WIDE_H_

// Where systems differ in what a program gets from its user: streams, arguments, environment. One
// file a system; all text is UTF-8.
#ifndef LANEWISE_APPS_CONSOLE_H_
#define LANEWISE_APPS_CONSOLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lanewise::apps {

constexpr int kInput = 0, kOutput = 1, kMessages = 2;  // the three streams

// To be called first: a stream that the program was started without is opened so that using it
// fails; otherwise the first file that is opened would take its place.
void OpenStreams();

// How many bytes were read from stdin or written, 0 at the end of stdin; -1 with an errno.
int64_t ReadStream(char* data, size_t size);
int64_t WriteStream(int stream, const char* data, size_t size);

bool IsTerminal(int stream);
bool ShowsColor(int stream);   // whether it is a terminal that obeys control sequences
size_t ColumnsOf(int stream);  // of a terminal; 0 where unknown

std::vector<std::string> Arguments(int argc, char** argv);  // without the program's name
std::optional<std::string> Environment(const std::string& name);
std::vector<std::string> EnvironmentNames();

}  // namespace lanewise::apps

#endif  // LANEWISE_APPS_CONSOLE_H_

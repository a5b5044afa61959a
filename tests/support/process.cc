#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <stdexcept>

namespace lanewise::testing {

namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  Pipe() {
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
  }
  ~Pipe() {
    CloseRead();
    CloseWrite();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void CloseRead() { Close(&ends[0]); }
  void CloseWrite() { Close(&ends[1]); }
  static void Close(int* fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
  int ends[2];
};

// Both ends of a terminal in the place of a pipe.
void MakeTerminal(Pipe* pipe, int columns) {
  pipe->CloseRead();
  pipe->CloseWrite();
  struct winsize size = {};
  size.ws_col = static_cast<unsigned short>(columns);
  size.ws_row = 24;
  if (openpty(&pipe->ends[0], &pipe->ends[1], nullptr, nullptr, &size) != 0) {
    throw std::runtime_error("openpty failed");
  }
  fcntl(pipe->ends[0], F_SETFD, FD_CLOEXEC);
}

[[noreturn]] void Execute(const std::vector<std::string>& words, const RunOptions& options,
                          Pipe& input, Pipe& output, Pipe& messages) {
  const bool own_terminal = !options.close_terminal_when.empty();
  if (own_terminal) {
    setsid();
    ioctl(messages.ends[1], TIOCSCTTY, 0);
  }
  dup2(own_terminal ? messages.ends[1] : input.ends[0], 0);
  dup2(own_terminal ? messages.ends[1] : output.ends[1], 1);
  dup2(messages.ends[1], 2);
  if (!options.output_path.empty()) {
    const int fd = open(options.output_path.c_str(), O_WRONLY);
    if (fd >= 0) dup2(fd, 1);
  }
  // A test program that runs in the background has these ignored, and a child would inherit that.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(signal, SIG_DFL);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(127);
}

// False at the end.
bool ReadInto(int fd, std::string* text) {
  char block[4096];
  const ssize_t size = read(fd, block, sizeof(block));
  if (size > 0) text->append(block, static_cast<size_t>(size));
  return size > 0 || (size < 0 && errno == EINTR);
}

// Reads what the process writes until it has closed both streams.
void Communicate(pid_t process, const RunOptions& options, Pipe& output, Pipe& messages,
                 RunResult* result) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(options.limit_seconds);
  bool signalled = options.signal == 0;
  while (output.ends[0] >= 0 || messages.ends[0] >= 0) {
    struct pollfd ready[] = {{output.ends[0], POLLIN, 0}, {messages.ends[0], POLLIN, 0}};
    poll(ready, 2, 50);
    if (ready[0].revents != 0 && !ReadInto(output.ends[0], &result->output)) output.CloseRead();
    if (ready[1].revents != 0 && !ReadInto(messages.ends[0], &result->messages)) {
      messages.CloseRead();
    }
    if (!options.close_terminal_when.empty() &&
        result->messages.find(options.close_terminal_when) != std::string::npos) {
      messages.CloseRead();
    }
    if (!signalled &&
        (result->messages + result->output).find(options.signal_when) != std::string::npos) {
      kill(process, options.signal);
      if (options.signal_twice) {
        usleep(1000);
        kill(process, options.signal);
      }
      signalled = true;
    }
    if (Clock::now() > deadline) {
      kill(process, SIGKILL);
      result->messages += "\n[killed: took too long]";
      return;
    }
  }
}

}  // namespace

RunResult RunProcess(const std::vector<std::string>& words, const RunOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  Pipe input, output, messages;
  const bool own_terminal = !options.close_terminal_when.empty();
  if (own_terminal || options.terminal_columns > 0) {
    MakeTerminal(&messages, own_terminal ? 80 : options.terminal_columns);
  }
  const pid_t process = fork();
  if (process < 0) throw std::runtime_error("fork failed");
  if (process == 0) Execute(words, options, input, output, messages);
  input.CloseRead();
  output.CloseWrite();
  messages.CloseWrite();
  if (options.close_output) output.CloseRead();
  if (options.close_messages) messages.CloseRead();
  // Inputs of tests fit into a pipe.
  if (!options.input.empty() &&
      write(input.ends[1], options.input.data(), options.input.size()) < 0) {
    // The process has ended without reading: its exit code tells.
  }
  input.CloseWrite();
  RunResult result;
  Communicate(process, options, output, messages, &result);
  int status = 0;
  // A terminal of its own is closed long before the process ends.
  int tenths = 0;
  while (waitpid(process, &status, own_terminal && tenths < 200 ? WNOHANG : 0) == 0) {
    usleep(100'000);
    if (++tenths == 200) kill(process, SIGKILL);
  }
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

RunResult RunLanewise(std::vector<std::string> arguments, const RunOptions& options) {
  arguments.insert(arguments.begin(), LANEWISE_PROGRAM);
  return RunProcess(arguments, options);
}

}  // namespace lanewise::testing

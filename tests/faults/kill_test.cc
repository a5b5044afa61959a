// The real program, killed at random moments of trainings that save after every step: the folder
// always loads, nothing that was complete is lost, and --resume goes on to the bits of an
// undisturbed run.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/run_log.h"
#include "tests/faults/cycle.h"
#include "tests/faults/program.h"
#include "tests/support/model_files.h"
#include "tests/support/process.h"

namespace lanewise::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSteps = 30;

// How often to kill each model's run: a few times every day, 100 times for each model in a soak.
int Times(int daily, int soak) {
  const char* rounds = std::getenv("LANEWISE_SOAK");
  return rounds == nullptr ? daily : soak * std::max(1, std::atoi(rounds));
}

// The program, with its messages in a file.
class Child {
 public:
  Child(std::vector<std::string> words, const std::string& messages) : messages_(messages) {
    words.insert(words.begin(), LANEWISE_BINARY_DIR "/lanewise");
    // A signal that comes before the program runs must not reach this program's handlers.
    sigset_t stops, before;
    sigemptyset(&stops);
    for (const int signal : {SIGINT, SIGTERM}) sigaddset(&stops, signal);
    sigprocmask(SIG_BLOCK, &stops, &before);
    process_ = fork();
    if (process_ != 0) sigprocmask(SIG_SETMASK, &before, nullptr);
    REQUIRE(process_ >= 0);
    if (process_ > 0) return;
    for (const int fd : {1, 2})
      dup2(open(messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), fd);
    dup2(open("/dev/null", O_RDONLY), 0);
    for (const int signal : {SIGINT, SIGTERM}) ::signal(signal, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  void Signal(int signal) const { kill(process_, signal); }
  // Exit code, or 128 + signal.
  int Wait() const {
    int status = 0;
    waitpid(process_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string Messages() const { return ReadWhole(messages_); }

 private:
  pid_t process_;
  std::string messages_;
};

struct Killed {
  Killed(const std::string& model, const TemporaryFolder& folder)
      : kind(model),
        data(folder.Write(kind + ".txt", MadeUpText(600))),
        run(folder / (kind + "-run")),
        messages(folder / (kind + "-messages")),
        files(model::MakeSystemFiles()) {
    const std::string whole = folder / (kind + "-whole");
    const auto begin = Clock::now();
    const Child undisturbed(TrainWords(kind, data, whole, kSteps), messages);
    const int code = undisturbed.Wait();
    INFO(undisturbed.Messages());
    REQUIRE(code == 0);
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    expected = Weights(whole);
  }

  std::vector<float> Weights(const std::string& folder) const {
    const auto latest = model::CheckpointStore(*files, folder, 1).Latest();
    REQUIRE(latest);
    REQUIRE(latest->step == kSteps);
    const model::Checkpoint checkpoint = model::LoadCheckpoint(*files, latest->folder);
    std::vector<float> all;
    for (const model::TensorView& tensor : checkpoint.weights.tensors()) {
      std::vector<float> values(tensor.Elements());
      tensor.ReadFloats(0, values);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  // Starts the run, or goes on with it.
  Child Start() const {
    std::vector<std::string> words = TrainWords(kind, data, run, kSteps);
    if (model::CheckpointStore(*files, run, 1).Latest()) words.push_back("--resume");
    return Child(words, messages);
  }

  // Every complete checkpoint loads with its checksums, the newest is no older than `step` and is
  // returned.
  int64_t CheckFolder(int64_t step) const {
    const model::CheckpointStore store(*files, run, 1);
    const auto all = store.List();
    for (const model::CheckpointInfo& info : all) {
      const model::Checkpoint checkpoint = model::LoadCheckpoint(*files, info.folder);
      CHECK(checkpoint.step == info.step);
      CHECK(checkpoint.can_resume());
    }
    const int64_t newest = all.empty() ? 0 : static_cast<int64_t>(all.back().step);
    CHECK(newest >= step);
    // The best is kept, whatever came after it.
    std::optional<double> best;
    const std::string log = run + "/log.jsonl";
    for (const model::LossPoint& point : model::ReadRunLog(*files, log).validation) {
      if (point.step <= newest && (!best || point.loss < *best)) best = point.loss;
    }
    if (newest >= 5) CHECK(store.Best()->val_loss.value_or(1e30) <= best.value_or(1e30));
    if (newest > 0) CHECK(!model::OpenModel(*files, run).tensors.empty());
    return newest;
  }

  std::string kind, data, run, messages;
  std::unique_ptr<model::FileSystem> files;
  std::vector<float> expected;
  double seconds = 0;
};

void Sleep(double seconds) { usleep(static_cast<useconds_t>(seconds * 1e6)); }

TEST_CASE("SIGKILL at random moments") {
  const TemporaryFolder folder;
  std::mt19937 random(Soak() ? std::random_device()() : 1);
  for (const std::string& kind : kKinds) {
    const Killed killed(kind, folder);
    int finished = 0, gone_on = 0, moments = 0;
    int64_t step = 0;
    while (moments < Times(4, 100)) {
      CAPTURE(moments);
      const Child child = killed.Start();
      Sleep(std::uniform_real_distribution<double>(0, 0.7 * killed.seconds)(random));
      child.Signal(SIGKILL);
      const int code = child.Wait();
      INFO(child.Messages());
      REQUIRE((code == 0 || code == 128 + SIGKILL));
      moments += code == 0 ? 0 : 1;
      gone_on += step > 0 ? 1 : 0;
      step = killed.CheckFolder(step);
      if (code != 0) continue;
      ++finished;
      CHECK(killed.Weights(killed.run) == killed.expected);
      model::RemoveTree(*killed.files, killed.run);
      step = 0;
    }
    const int code = killed.Start().Wait();
    CHECK(code == 0);
    CHECK(killed.Weights(killed.run) == killed.expected);
    MESSAGE(kind, ": killed ", moments, " times, resumed ", gone_on, " times, ", finished + 1,
            " runs finished with the bits of the undisturbed one");
  }
}

// A finished sentence, not half of one.
bool EndsWithLine(const std::string& text) { return text.empty() || text.back() == '\n'; }

TEST_CASE("SIGINT and SIGTERM at random moments of a training") {
  const TemporaryFolder folder;
  std::mt19937 random(Soak() ? std::random_device()() : 2);
  for (const std::string& kind : kKinds) {
    const Killed killed(kind, folder);
    int saved = 0, early = 0, done = 0;
    int64_t step = 0;
    for (int i = 0; i < Times(3, 25); ++i) {
      CAPTURE(i);
      const int signal = i % 2 == 0 ? SIGINT : SIGTERM;
      const bool twice = i % 5 == 4;
      const Child child = killed.Start();
      Sleep(std::uniform_real_distribution<double>(0.3 * killed.seconds, killed.seconds)(random));
      child.Signal(signal);
      if (twice) child.Signal(signal);
      const int code = child.Wait();
      INFO(child.Messages());
      CHECK((code == 0 || code == 128 + signal));
      CHECK(EndsWithLine(child.Messages()));
      // Before the training begins there is nothing to go on with, and before the program can catch
      // a signal no word.
      const bool begun = Contains(child.Messages(), "Ctrl-C stops it and saves");
      if (code != 0 && !twice && begun) {
        CHECK(Contains(child.Messages(), "lanewise train --resume " + killed.run));
      }
      const int64_t now = killed.CheckFolder(step);
      (code == 0 ? done : now > 0 ? saved : early) += 1;
      step = now;
      if (step < kSteps) continue;
      CHECK(killed.Weights(killed.run) == killed.expected);
      model::RemoveTree(*killed.files, killed.run);
      step = 0;
    }
    MESSAGE(kind, ": stopped ", saved, " times with a checkpoint, ", early, " before the first, ",
            done, " too late");
  }
}

TEST_CASE("SIGINT and SIGTERM at random moments of generate and eval") {
  const TemporaryFolder folder;
  std::mt19937 random(Soak() ? std::random_device()() : 3);
  for (const std::string& kind : kKinds) {
    const Killed killed(kind, folder);
    const std::string model = folder / (kind + "-whole");
    const std::string long_text = folder.Write("long.txt", MadeUpText(200'000));
    const std::vector<std::vector<std::string>> commands{
        {"generate", model, "--prompt", "the ", "--tokens", "100000", "--seed", "1"},
        {"eval", model, "--data", long_text, "--json"}};
    int stopped = 0, done = 0;
    for (int i = 0; i < Times(4, 25); ++i) {
      CAPTURE(i);
      const int signal = i % 4 < 2 ? SIGINT : SIGTERM;
      const Child child(commands[static_cast<size_t>(i % 2)], killed.messages);
      Sleep(std::uniform_real_distribution<double>(0, 1)(random));
      child.Signal(signal);
      const int code = child.Wait();
      INFO(child.Messages());
      CHECK((code == 0 || code == 128 + signal));
      CHECK(EndsWithLine(child.Messages()));
      (code == 0 ? done : stopped) += 1;
    }
    MESSAGE(kind, ": stopped ", stopped, " times, ", done, " too late");
  }
}

}  // namespace
}  // namespace lanewise::testing

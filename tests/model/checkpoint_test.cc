#include "model/checkpoint.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <cmath>
#include <limits>
#include <memory>

#include "model/error.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"

namespace lanewise::model {
namespace {

using testing::Contains;
using testing::Golden;
using testing::Loss;
using testing::MemoryFiles;
using testing::MessageOf;

// A training state that depends on the step alone.
struct FakeRun {
  std::vector<float> weights, moments;

  CheckpointContent At(uint64_t step) {
    weights.assign(64, static_cast<float>(step));
    moments.assign(64, static_cast<float>(step) / 2);
    CheckpointContent content;
    content.config = {{"model", "slot_rnn"}, {"vocab_size", 256}};
    content.tokenizer = {{"kind", "byte"}};
    content.weights = {MakeSource("emb", {8, 8}, weights)};
    content.train_tensors = {MakeSource("emb.m", {64}, moments)};
    content.train_state = {{"step", step}, {"key", UINT64_MAX}};
    return content;
  }
};

// The smallest run that OpenModel takes for one; all weights are the step.
struct TinyRun {
  std::unique_ptr<Model> model = MakeModel({{"model", "llama"},
                                            {"vocab_size", 256},
                                            {"layers", 1},
                                            {"dim", 2},
                                            {"heads", 1},
                                            {"kv_heads", 1},
                                            {"hidden_dim", 1},
                                            {"ctx", 1},
                                            {"tied", true},
                                            {"norm_eps", 1e-5},
                                            {"rope_theta", 1e4}},
                                           "test");
  std::vector<float> weights;

  CheckpointContent At(uint64_t step) {
    weights.assign(model->params().buffer_size(), static_cast<float>(step));
    CheckpointContent content;
    content.config = model->Config();
    content.tokenizer = {{"kind", "byte"}};
    content.weights = WeightSources(model->params(), weights.data());
    content.train_state = {{"step", step}};
    return content;
  }
};

// The step that a checkpoint's content says it is, after everything was verified.
uint64_t StepOf(FileSystem& files, const std::string& folder) {
  const Checkpoint checkpoint = LoadCheckpoint(files, folder);
  float value = 0.0f;
  checkpoint.weights.Find("emb")->ReadFloats(63, {&value, 1});
  float moment = 0.0f;
  checkpoint.train_tensors.Find("emb.m")->ReadFloats(63, {&moment, 1});
  CHECK(moment == value / 2);
  CHECK(checkpoint.train_state["step"] == checkpoint.step);
  CHECK(static_cast<float>(checkpoint.step) == value);
  return checkpoint.step;
}

std::vector<uint64_t> Steps(const CheckpointStore& store) {
  std::vector<uint64_t> steps;
  for (const CheckpointInfo& info : store.List()) steps.push_back(info.step);
  return steps;
}

TEST_CASE("a checkpoint is saved and loaded") {
  MemoryFiles files;
  FakeRun run;
  CheckpointStore store(files, "runs/a", 2);
  CHECK(!store.Latest());
  store.Save(500, run.At(500), 1.25);
  CHECK(files.Content("runs/a/checkpoints/LATEST") == "step-000500\n");
  CHECK(files.Content("runs/a/checkpoints/BEST") == "step-000500\n");
  const std::string folder = "runs/a/checkpoints/step-000500";
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors",
                           "train_state.safetensors", "MANIFEST.json"}) {
    CHECK(IsFile(files, JoinPath(folder, name)));
  }
  const Checkpoint checkpoint = LoadCheckpoint(files, folder);
  CHECK(checkpoint.step == 500);
  CHECK(checkpoint.val_loss == 1.25);
  CHECK(checkpoint.can_resume());
  CHECK(checkpoint.train_state["key"] == UINT64_MAX);
  CHECK(StepOf(files, folder) == 500);
  // The run folder has the model under the names people know.
  CHECK(LoadCheckpoint(files, "runs/a").weights.Find("emb") != nullptr);
  CHECK(files.Content("runs/a/model.safetensors") == files.Content(folder + "/model.safetensors"));
}

TEST_CASE("the newest and the best are kept") {
  MemoryFiles files;
  FakeRun run;
  CheckpointStore store(files, "run", 2);
  const double losses[] = {3.0, 1.0, 2.0, std::nan(""), 1.5};
  for (uint64_t i = 0; i < 5; ++i) store.Save(10 * (i + 1), run.At(10 * (i + 1)), losses[i]);
  CHECK(Steps(store) == std::vector<uint64_t>{20, 40, 50});
  CHECK(store.Best()->step == 20);
  CHECK(store.Latest()->step == 50);
  CHECK(files.Content("run/checkpoints/BEST") == "step-000020\n");
  CHECK(files.Content("run/checkpoints/LATEST") == "step-000050\n");
  CHECK(files.Content("run/model.safetensors") ==
        files.Content("run/checkpoints/step-000020/model.safetensors"));
  CHECK(ResolveModel(files, "run") == "run/checkpoints/step-000020");
  store.Save(60, run.At(60), 0.5);
  CHECK(Steps(store) == std::vector<uint64_t>{50, 60});
  CHECK(ResolveModel(files, "run") == "run/checkpoints/step-000060");
  for (const std::string& path : files.AllFiles()) CHECK(!Contains(path, ".tmp"));
}

TEST_CASE("a manifest that cannot be read: an older checkpoint is left out, the newest said") {
  MemoryFiles files;
  FakeRun run;
  const CheckpointStore store(files, "run", 3);
  for (const uint64_t step : {999'998, 999'999, 1'000'000}) {
    CheckpointStore(files, "run", 3).Save(step, run.At(step), 1.0);
  }
  WriteFileAtomically(files, "run/checkpoints/step-999999/MANIFEST.json", "");
  CHECK(Steps(store) == std::vector<uint64_t>{999'998, 1'000'000});
  WriteFileAtomically(files, "run/checkpoints/step-1000000/MANIFEST.json", "{}");
  const std::string newest = "run/checkpoints/step-1000000";
  const std::string message = MessageOf<InputError>([&] { store.Latest(); });
  CHECK(Contains(message, newest + "/MANIFEST.json"));
  CHECK(Contains(message, "delete " + newest + " to go on from the checkpoint before it"));
  WriteFileAtomically(files, "run/checkpoints/step-999998/MANIFEST.json", "");
  CHECK_FALSE(Contains(MessageOf<InputError>([&] { store.List(); }), "delete"));
}

TEST_CASE("without validation the latest is the best; step names sort by number") {
  MemoryFiles files;
  FakeRun run;
  CheckpointStore store(files, "run", 1);
  store.Save(999'999, run.At(999'999), std::nullopt);
  store.Save(1'000'001, run.At(1'000'001), std::nullopt);
  CHECK(Steps(store) == std::vector<uint64_t>{1'000'001});
  CHECK(store.Best()->step == 1'000'001);
}

TEST_CASE("links fall back to copies") {
  MemoryFiles files;
  files.SetHardLinks(false);
  FakeRun run;
  CheckpointStore(files, "run", 1).Save(1, run.At(1), 1.0);
  CHECK(files.Content("run/model.safetensors") ==
        files.Content("run/checkpoints/step-000001/model.safetensors"));
}

// Saves steps 1 to 3 and 3 again, with the best at 1.
void SaveSeveral(FileSystem& files) {
  FakeRun run;
  CheckpointStore store(files, "run", 1);
  store.Save(1, run.At(1), 1.0);
  store.Save(2, run.At(2), 2.0);
  store.Save(3, run.At(3), 3.0);
  store.Save(3, run.At(3), 2.5);
}

TEST_CASE("after a kill or power cut at any operation the newest complete checkpoint loads") {
  MemoryFiles count;
  SaveSeveral(count);
  const int operations = count.operations();
  REQUIRE(operations > 100);
  for (const Loss loss : {Loss::kNothing, Loss::kUnsynced, Loss::kContent}) {
    uint64_t newest = 0;
    for (int k = 0; k <= operations; ++k) {
      CAPTURE(k);
      MemoryFiles files;
      files.StopAt(k);
      testing::Succeeds([&] { SaveSeveral(files); });
      const auto left = files.Restart(loss);
      CheckpointStore store(*left, "run", 1);
      const auto all = store.List();
      for (const CheckpointInfo& info : all) CHECK(StepOf(*left, info.folder) == info.step);
      // Once it is there a checkpoint stays until a newer one is there.
      const uint64_t latest = all.empty() ? 0 : all.back().step;
      CHECK(latest >= newest);
      newest = latest;
      if (newest > 0) CHECK(ResolveModel(*left, "run") == store.Best()->folder);
      // The run goes on, and cleans up.
      FakeRun run;
      store.Save(9, run.At(9), 9.0);
      CHECK(StepOf(*left, store.Latest()->folder) == 9);
      for (const std::string& path : left->AllFiles()) {
        CHECK(!Contains(path, "checkpoints/.tmp"));
        CHECK(!Contains(path, ".old-"));
      }
    }
    CHECK(newest == 3);
  }
}

TEST_CASE("a model folder that was saved survives a power cut, one that was not leaves nothing") {
  FakeRun run;
  MemoryFiles count;
  SaveModelFolder(count, "out/m", run.At(1), 1, std::nullopt);
  for (const Loss loss : {Loss::kNothing, Loss::kUnsynced, Loss::kContent}) {
    for (int k = 0; k <= count.operations(); ++k) {
      CAPTURE(k);
      MemoryFiles files;
      files.StopAt(k);
      const bool saved =
          testing::Succeeds([&] { SaveModelFolder(files, "out/m", run.At(1), 1, std::nullopt); });
      const auto left = files.Restart(loss);
      const bool found = IsDirectory(*left, "out/m");
      if (found) CHECK(StepOf(*left, "out/m") == 1);
      if (saved) CHECK(found);
    }
  }
}

TEST_CASE("every failing operation is reported or harmless, and nothing is lost") {
  for (const int error : {EIO, ENOSPC}) {
    MemoryFiles count;
    FakeRun run;
    CheckpointStore(count, "run", 1).Save(1, run.At(1), 1.0);
    const int first = count.operations();
    CheckpointStore(count, "run", 1).Save(2, run.At(2), 0.5);
    for (int k = first; k < count.operations(); ++k) {
      CAPTURE(k);
      MemoryFiles files;
      CheckpointStore store(files, "run", 1);
      store.Save(1, run.At(1), 1.0);
      files.FailAt(k, error);
      const std::string message = MessageOf<IoError>([&] { store.Save(2, run.At(2), 0.5); });
      const auto latest = store.Latest();
      REQUIRE(latest);
      CHECK(StepOf(files, latest->folder) == latest->step);
      if (message.empty()) CHECK(latest->step == 2);
      // Trying again succeeds and leaves nothing behind.
      store.Save(2, run.At(2), 0.5);
      CHECK(StepOf(files, store.Latest()->folder) == 2);
      CHECK(Steps(store) == std::vector<uint64_t>{2});
      for (const std::string& path : files.AllFiles()) CHECK(!Contains(path, "/.tmp"));
    }
  }
}

TEST_CASE("a full disk is noticed before writing and named with what is needed") {
  MemoryFiles files;
  FakeRun run;
  CheckpointStore store(files, "run", 1);
  store.Save(1, run.At(1), 1.0);
  files.SetFreeSpace(1000);
  const int before = files.operations();
  CHECK(Contains(MessageOf<IoError>([&] { store.Save(2, run.At(2), 1.0); }), "are needed and"));
  CHECK(files.operations() - before < 20);
  files.SetFreeSpace(1 << 30);
  // The space may be gone while it is written.
  MemoryFiles count;
  CheckpointStore(count, "run", 1).Save(1, run.At(1), 1.0);
  bool told = false;
  for (int k = 0; k < count.operations(); ++k) {
    MemoryFiles full;
    full.FailAt(k, ENOSPC);
    const std::string message =
        MessageOf<IoError>([&] { CheckpointStore(full, "run", 1).Save(1, run.At(1), 1.0); });
    told = told || Contains(message, "this checkpoint needs");
  }
  CHECK(told);
}

TEST_CASE("no flipped bit and no truncation of any file loads") {
  MemoryFiles files;
  FakeRun run;
  CheckpointStore(files, "run", 1).Save(1, run.At(1), 1.0);
  const std::string folder = "run/checkpoints/step-000001";
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors",
                           "train_state.safetensors", "MANIFEST.json"}) {
    CAPTURE(name);
    const std::string path = JoinPath(folder, name);
    const std::string good = files.Content(path);
    const auto message = [&](const std::string& bytes) {
      files.SetContent(path, bytes);
      return MessageOf<InputError>([&] { LoadCheckpoint(files, folder); });
    };
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
      CAPTURE(bit);
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      CHECK(Contains(message(bad), name));
    }
    for (size_t size = 0; size < good.size(); size += size < 100 ? 1 : 37) {
      CHECK(Contains(message(good.substr(0, size)), name));
    }
    CHECK(message(good).empty());
  }
}

TEST_CASE("errors say which tensor is wrong, and weights must be finite") {
  MemoryFiles files;
  FakeRun run;
  CheckpointContent content = run.At(1);
  run.weights[17] = std::numeric_limits<float>::infinity();
  SaveModelFolder(files, "m", content, 1, 1.0);
  CHECK(Contains(MessageOf<InputError>([&] { LoadCheckpoint(files, "m"); }),
                 "m/model.safetensors: tensor \"emb\": entry 17 is NaN or infinite"));
  SaveModelFolder(files, "n", run.At(1), 1, 1.0);
  std::string bytes = files.Content("n/model.safetensors");
  bytes.back() ^= 4;
  files.SetContent("n/model.safetensors", bytes);
  CHECK(Contains(MessageOf<InputError>([&] { LoadCheckpoint(files, "n"); }),
                 "n/model.safetensors: tensor \"emb\": checksum"));
  CHECK(Contains(MessageOf<IoError>([&] { SaveModelFolder(files, "n", content, 1, 1.0); }),
                 "exists already"));
  content.tokenizer["words"] = std::string(size_t{33} << 20, 'a');
  CHECK(Contains(MessageOf<InputError>([&] { SaveModelFolder(files, "big", content, 1, 1.0); }),
                 "big/tokenizer.json: would take 33.0 MiB"));
  CHECK(GetInfo(files, "big").kind == FileInfo::Kind::kMissing);
}

TEST_CASE("to use a model, the state of its training is neither read nor missed") {
  MemoryFiles files;
  TinyRun run;
  const std::string folder = "run/checkpoints/step-000001";
  const std::string state = folder + "/train_state.safetensors";
  CheckpointStore(files, "run", 1).Save(1, run.At(1), 1.0);
  files.SetContent(state, "damaged");
  CHECK(LoadModelFiles(files, folder + "/model.safetensors").train_state.is_null());
  CHECK(OpenModel(files, "run").tokenizer["kind"] == "byte");
  CHECK(Contains(MessageOf<InputError>([&] { LoadCheckpoint(files, folder); }), state));
  REQUIRE(files.RemoveFile(state) == 0);
  CHECK(OpenModel(files, "run").tokenizer["kind"] == "byte");
  // Who needs the space deletes it.
  CHECK_FALSE(LoadCheckpoint(files, folder).can_resume());
  // The model itself is still verified.
  std::string bytes = files.Content(folder + "/config.json");
  bytes.back() = ' ';
  files.SetContent(folder + "/config.json", bytes);
  CHECK(Contains(MessageOf<InputError>([&] { OpenModel(files, "run"); }), "config.json"));
}

TEST_CASE("one process a run folder") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  {
    const RunLock lock(*files, folder / "run");
    const std::string message = MessageOf<LockedError>([&] { RunLock(*files, folder / "run"); });
    CHECK(Contains(message, "process " + std::to_string(ProcessId())));
    CHECK(Contains(message, folder / "run"));
  }
  const RunLock again(*files, folder / "run");
}

TEST_CASE("any model argument is opened, and what is none is refused") {
  const auto files = MakeSystemFiles();
  const testing::TemporaryFolder folder;
  TinyRun run;
  CheckpointStore store(*files, folder / "run", 2);
  store.Save(1, run.At(1), 1.0);
  store.Save(2, run.At(2), 2.0);
  const auto value = [&](const std::string& path) {
    return OpenModel(*files, path).Find("norm")->Values()[0];
  };
  CHECK(value(folder / "run") == 1.0f);
  CHECK(value(folder / "run/") == 1.0f);
  CHECK(value(folder / "run/checkpoints/step-000002") == 2.0f);
  CHECK(value(folder / "run/checkpoints/step-000002/model.safetensors") == 2.0f);
  RemoveTree(*files, folder / "run/checkpoints");
  CHECK(value(folder / "run") == 1.0f);
  CHECK(OpenModel(*files, Golden("slot_rnn/char.bin")).format == "lrnnC02");
  CHECK(OpenModel(*files, Golden("llama/llama_mha_untied.bin")).format == "llama2c-v0");

  const auto message = [&](const std::string& path) {
    return MessageOf<InputError>([&] { OpenModel(*files, path); });
  };
  CHECK(Contains(message(folder / "none"), "no such file or folder"));
  MakeDirectories(*files, folder / "empty");
  CHECK(Contains(message(folder / "empty"), "holds no checkpoint"));
  testing::WriteWhole(folder / "text.txt", "some text");
  CHECK(Contains(message(folder / "text.txt"), "no model file"));
  testing::WriteWhole(folder / "zero.bin", "");
  CHECK(Contains(message(folder / "zero.bin"), "is empty"));
  testing::WriteWhole(folder / "m.bin",
                      testing::ReadWhole(Golden("llama/llama_gqa_tied.bin")).substr(0, 9000));
  CHECK(Contains(message(folder / "m.bin"), "tok_embeddings"));
  const std::string llama = folder / "llama.bin", tokenizer = folder / "tokenizer.bin";
  testing::WriteWhole(llama, testing::ReadWhole(Golden("llama/llama_gqa_tied.bin")));
  CHECK(message(llama).empty());
  testing::WriteWhole(tokenizer, testing::TokenizerFile({"of", "another"}));
  CHECK(Contains(message(llama), tokenizer + ": "));
  CHECK(Contains(message(llama), "as the tokenizer of " + llama));
  CHECK(Contains(message(llama), "move it away"));
  testing::WriteWhole(folder / "alone/model.safetensors",
                      testing::ReadWhole(folder / "run/model.safetensors"));
  CHECK(Contains(message(folder / "alone/model.safetensors"), "config.json"));
  Json config = run.model->Config();
  config["vocab_size"] = 100;
  testing::WriteWhole(folder / "alone/config.json", config.dump());
  testing::WriteWhole(folder / "alone/tokenizer.json", R"({"kind": "byte"})");
  CHECK(Contains(message(folder / "alone"), "the tokenizer has 256 entries and the model 100"));
}

}  // namespace
}  // namespace lanewise::model

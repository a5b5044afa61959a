#include "model/text_batch.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <utility>

#include "kernels/matmul.h"
#include "model/session.h"

namespace lanewise::model {

namespace {

// States of all streams together: fewer streams run at once where theirs are large.
constexpr size_t kMostStateBytes = size_t{2} << 30;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Tokens that a text begins with.
size_t CountTokens(const Tokenizer& tokenizer, const std::string& prompt) {
  const bool bos = tokenizer.bos_id() >= 0;
  const std::string text = prompt.empty() && !bos ? "\n" : prompt;
  return std::max<size_t>(1, tokenizer.Encode(text).size() + (bos ? 1 : 0));
}

// Checks every prompt, and chooses streams and cache for them.
SessionOptions ChooseSession(const Model& model, const Tokenizer& tokenizer,
                             const std::vector<TextRequest>& requests,
                             const TextBatchOptions& options, bool half_weights) {
  SessionOptions session{.slide = options.slide};
  size_t longest = 1;
  for (const TextRequest& request : requests) {
    const size_t tokens = CountTokens(tokenizer, request.prompt);
    if (!model.recurrent() && !options.slide) CheckRoom(tokens, model.context(), request.where);
    longest = std::max(longest, tokens);
  }
  // Not below a chunk of the prompt: the chunk decides the order of sums.
  const size_t needed = std::max<size_t>(longest + options.text.tokens, session.prefill_steps);
  session.cache_capacity = std::min(needed, model.context());
  size_t bytes = 0;
  for (const StateSpec& spec :
       model.state({.half_weights = half_weights, .cache_capacity = session.cache_capacity})) {
    bytes += spec.Bytes() * (spec.in_place ? 1 : 2);
  }
  const size_t fitting = std::clamp<size_t>(kMostStateBytes / std::max<size_t>(1, bytes), 1,
                                            kernels::kMatmulSkinnyRows);
  session.streams = std::min(requests.size(), fitting);
  return session;
}

class Batch {
 public:
  Batch(const Model& model, const runtime::Weights& weights, const runtime::Scheduler& scheduler,
        const Tokenizer& tokenizer, const std::vector<TextRequest>& requests,
        const TextBatchOptions& options)
      : scheduler_(scheduler),
        tokenizer_(tokenizer),
        requests_(requests),
        options_(options),
        vocab_size_(model.vocab_size()),
        session_options_(
            ChooseSession(model, tokenizer, requests, options, weights.half != nullptr)),
        session_(model, weights, scheduler, session_options_) {}

  TextBatchReport Run() {
    for (;;) {
      Replace();
      if (live_.empty()) return total_;
      if (GoOn()) {
        Step();
      } else {
        for (Live& live : live_) Interrupt(live);
      }
    }
  }

 private:
  // The text in a stream; live_[s] is in stream s.
  struct Live {
    size_t index;
    std::unique_ptr<TextStream> text;
    double begin;
    bool over;
  };

  bool GoOn() {
    if (!stopped_) stopped_ = options_.on_step && !options_.on_step(total_);
    return !stopped_;
  }

  static void Interrupt(Live& live) {
    live.over = true;
    live.text->report().reason = StopReason::kInterrupted;
  }

  // Takes out the texts that are over. Others take their place: new ones, and at the end the last
  // stream's, so that the streams in use are the first ones.
  void Replace() {
    for (size_t s = 0; s < session_options_.streams;) {
      if (s < live_.size() && !live_[s].over) {
        ++s;
        continue;
      }
      if (s < live_.size()) Finish(live_[s]);
      if (next_ < requests_.size() && !stopped_) {
        if (s == live_.size()) live_.emplace_back();
        live_[s] = Start(s, next_++);
      } else if (s < live_.size()) {
        if (s + 1 < live_.size()) {
          session_.CopyStream(live_.size() - 1, s);
          live_[s] = std::move(live_.back());
        }
        live_.pop_back();
      } else {
        break;
      }
    }
  }

  Live Start(size_t stream, size_t index) {
    const TextRequest& request = requests_[index];
    GenerateOptions options = options_.text;
    options.sampler.seed = request.seed;
    options.on_text = nullptr;
    Live live{index, std::make_unique<TextStream>(tokenizer_, vocab_size_, options), 0, true};
    if (!request.prompt.empty()) live.text->Prompt(request.prompt);
    live.text->Begin();
    if (options.tokens == 0) return live;
    const double begin = Now();
    // Before the first step stream 0 is still where its prompt ends.
    if (stream > 0 && !stepped_ && requests_[live_[0].index].prompt == request.prompt) {
      session_.CopyStream(0, stream);
    } else {
      session_.Reset(stream);
      total_.prompt_tokens +=
          session_.Feed(live.text->pending(), stream, [this](size_t) { return GoOn(); });
    }
    live.begin = Now();
    live.text->report().prompt_seconds = live.begin - begin;
    total_.prompt_seconds += live.begin - begin;
    if (stopped_) {
      Interrupt(live);
      return live;
    }
    live.over = !Draw(*live.text, stream);
    ++total_.tokens;
    return live;
  }

  void Finish(Live& live) {
    live.text->End();
    GenerateReport& report = live.text->report();
    if (report.tokens > 0) report.seconds = Now() - live.begin;
    ++total_.texts;
    if (report.reason == StopReason::kContextFull) ++total_.full;
    if (report.reason == StopReason::kInterrupted) ++total_.interrupted;
    finished_.emplace(live.index, std::move(report));
    while (!finished_.empty() && finished_.begin()->first == delivered_) {
      options_.on_finished(delivered_++, finished_.begin()->second);
      finished_.erase(finished_.begin());
    }
  }

  // False when the text is over.
  bool Draw(TextStream& text, size_t stream) {
    if (!text.Draw(session_.logits(stream))) return false;
    if (session_.room(stream) > 0) return true;
    text.report().reason = StopReason::kContextFull;
    return false;
  }

  void Step() {
    const double begin = Now();
    stepped_ = true;
    tokens_.clear();
    for (const Live& live : live_) {
      tokens_.push_back(live.text->pending().front());
      ++live.text->report().steps;
    }
    session_.Step(tokens_);
    scheduler_.All().For(live_.size(),
                         [this](size_t s, size_t) { live_[s].over = !Draw(*live_[s].text, s); });
    total_.tokens += live_.size();
    total_.steps += live_.size();
    total_.seconds += Now() - begin;
  }

  const runtime::Scheduler& scheduler_;
  const Tokenizer& tokenizer_;
  const std::vector<TextRequest>& requests_;
  const TextBatchOptions& options_;
  size_t vocab_size_;
  SessionOptions session_options_;
  Session session_;
  std::vector<Live> live_;
  std::vector<int32_t> tokens_;
  std::map<size_t, GenerateReport> finished_;  // but not delivered: one before them is not finished
  size_t next_ = 0, delivered_ = 0;
  bool stepped_ = false, stopped_ = false;
  TextBatchReport total_;
};

}  // namespace

TextBatchReport GenerateTexts(const Model& model, const runtime::Weights& weights,
                              const runtime::Scheduler& scheduler, const Tokenizer& tokenizer,
                              const std::vector<TextRequest>& requests,
                              const TextBatchOptions& options) {
  if (requests.empty()) return {};
  return Batch(model, weights, scheduler, tokenizer, requests, options).Run();
}

}  // namespace lanewise::model

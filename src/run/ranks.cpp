#include "run/ranks.h"

#define USE_C10D_GLOO
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <set>
#include <stdexcept>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "run/gpu_sums.h"

namespace hesper {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kBeat = 1000ms;
constexpr auto kDead = 20s, kJoin = 300s;
// A window may take hours; who waits for a rank that is gone is told by the watch.
constexpr auto kLongest = 24h * 365;

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

int number(const char* name, int least, int most) {
  const std::string text = variable(name).value_or("");
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < least || value > most)
    throw std::invalid_argument(
        fmt::format("{}={}: a number from {} to {} is needed with WORLD_SIZE", name, text, least, most));
  return static_cast<int>(value);
}

std::vector<uint8_t> bytes(const std::string& text) { return {text.begin(), text.end()}; }

}  // namespace

std::optional<RankPlace> rank_place() {
  if (!variable("WORLD_SIZE")) return std::nullopt;
  RankPlace place;
  place.world = number("WORLD_SIZE", 1, 1 << 16);
  if (place.world == 1) return std::nullopt;
  place.rank = number("RANK", 0, place.world - 1);
  place.port = number("MASTER_PORT", 1, 65535);
  place.address = variable("MASTER_ADDR").value_or("");
  if (place.address.empty()) throw std::invalid_argument("MASTER_ADDR: is needed with WORLD_SIZE");
  place.agent_listens = variable("TORCHELASTIC_USE_AGENT_STORE") == "True";
  place.prefix = fmt::format("hesper/{}", variable("TORCHELASTIC_RESTART_COUNT").value_or("0"));
  return place;
}

struct Ranks::Wires {
  c10::intrusive_ptr<c10d::Store> store;
  std::unique_ptr<c10d::ProcessGroupGloo> group;
  std::unique_ptr<GpuSums> gpus;  // where every rank has its own
  int64_t on_this_device = 1;
  std::atomic<bool> over{false};
  std::thread watch;

  static c10::intrusive_ptr<c10d::Store> open(const RankPlace& place, bool listens) {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(place.port);
    options.isServer = listens;
    options.waitWorkers = false;
    options.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(kJoin);
    return c10::make_intrusive<c10d::PrefixStore>(place.prefix,
                                                  c10::make_intrusive<c10d::TCPStore>(place.address, options));
  }

  /// What every rank says of itself under `key`, in their order.
  std::vector<std::string> told(const RankPlace& place, const std::string& key, const std::string& mine) {
    store->set(fmt::format("{}/{}", key, place.rank), bytes(mine));
    std::vector<std::string> all;
    for (int r = 0; r < place.world; ++r) {
      const std::vector<uint8_t> theirs = store->get(fmt::format("{}/{}", key, r));
      all.emplace_back(theirs.begin(), theirs.end());
    }
    return all;
  }

  /// After the text under `key` has been read. Rank 0, which may end now and its store with it, waits for all of them.
  void have_read(const RankPlace& place, const std::string& key) {
    const std::string read = key + "/read";
    store->add(read, 1);
    while (place.rank == 0 && store->add(read, 0) < place.world) std::this_thread::sleep_for(2ms);
  }

  /// True where no two ranks pass over the same device, and none over a CPU.
  bool own_gpus(const RankPlace& place, at::Device device) {
    char host[256] = {};
    ::gethostname(host, sizeof(host) - 1);
    const std::string mine = fmt::format("{} {}", device.str(), host);
    const std::vector<std::string> all = told(place, "device", mine);
    on_this_device = std::count(all.begin(), all.end(), mine);
    return std::set(all.begin(), all.end()).size() == all.size() &&
           std::none_of(all.begin(), all.end(), [](const std::string& one) { return one.starts_with("cpu"); });
  }

  /// Shows that this rank lives, and looks whether those it depends on do: rank 0 at all, the others at rank 0.
  void keep_watch(const RankPlace& place, const OnDeath& on_death) {
    struct Seen {
      int64_t beats = -1;
      Clock::time_point at = Clock::now();
    };
    std::map<int, Seen> seen;
    for (int r = 0; r < place.world; ++r)
      if (r != place.rank && (place.rank == 0 || r == 0)) seen[r];
    try {
      const auto own = open(place, false);
      while (!over) {
        own->add(fmt::format("beat/{}", place.rank), 1);
        for (auto& [rank, last] : seen) {
          const int64_t beats = own->add(fmt::format("beat/{}", rank), 0);
          if (beats != last.beats) last = {beats, Clock::now()};
          if (Clock::now() - last.at < kDead || own->add(fmt::format("left/{}", rank), 0) > 0 || over) continue;
          on_death(fmt::format("rank {} of {} has died (no sign of it for {} s)", rank, place.world, kDead.count()));
          return;
        }
        for (int i = 0; i < 20 && !over; ++i) std::this_thread::sleep_for(kBeat / 20);
      }
    } catch (const std::exception&) {
      if (!over)
        on_death(
            fmt::format("rank 0 of {} has died (its address {}:{} is gone)", place.world, place.address, place.port));
    }
  }
};

Ranks::Ranks(const RankPlace& place, at::Device device, OnDeath on_death)
    : place_(place), wires_(std::make_unique<Wires>()) {
  Wires& w = *wires_;
  try {
    w.store = Wires::open(place, place.rank == 0 && !place.agent_listens);
    w.store->add("come", 1);
    for (const Clock::time_point begin = Clock::now(); w.store->add("come", 0) < place.world;) {
      if (Clock::now() - begin > kJoin)
        throw std::runtime_error(fmt::format("{} of {} ranks have come to {}:{} in {} s", w.store->add("come", 0),
                                             place.world, place.address, place.port, kJoin.count()));
      std::this_thread::sleep_for(20ms);
    }
    const auto options = c10d::ProcessGroupGloo::Options::create_default(
        std::chrono::duration_cast<std::chrono::milliseconds>(kLongest));
    w.group = std::make_unique<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>("gloo", w.store),
                                                       place.rank, place.world, options);
    if (w.own_gpus(place, device)) w.gpus = std::make_unique<GpuSums>(w.store, place.rank, place.world, device);
  } catch (const c10::Error& error) {
    throw std::runtime_error(fmt::format("rank {} of {} finds no {}:{}: {}", place.rank, place.world, place.address,
                                         place.port, error.what_without_backtrace()));
  }
  w.watch = std::thread([this, on_death = std::move(on_death)] { wires_->keep_watch(place_, on_death); });
}

Ranks::~Ranks() {
  wires_->over = true;
  wires_->watch.join();
}

bool Ranks::by_nccl() const { return wires_->gpus != nullptr; }
int64_t Ranks::on_this_device() const { return wires_->on_this_device; }

int64_t Ranks::least(int64_t number) {
  const std::string key = fmt::format("least/{}", compared_++);
  int64_t least = number;
  for (const std::string& other : wires_->told(place_, key, std::to_string(number)))
    least = std::min<int64_t>(least, std::stoll(other));
  wires_->have_read(place_, key);
  return least;
}

std::string Ranks::share(const std::string& text) {
  const std::string key = fmt::format("share/{}", shared_++);
  if (conducts()) wires_->store->set(key, bytes(text));
  while (!wires_->store->check({key})) std::this_thread::sleep_for(20ms);  // may take as long as a pilot does
  const std::vector<uint8_t> all = wires_->store->get(key);
  wires_->have_read(place_, key);
  return {all.begin(), all.end()};
}

template <class F>
void Ranks::together(F f) {
  try {
    f();
  } catch (const std::exception&) {
    // The peer that is gone is named by the watch.
    std::this_thread::sleep_for(kDead + 5s);
    throw std::runtime_error(fmt::format("rank {} of {} has lost another", place_.rank, place_.world));
  }
}

// Both work on contiguous memory of the CPU; a handle of anything else gets its numbers back.
void Ranks::share(at::Tensor t) {
  if (t.numel() == 0) return;
  std::vector<at::Tensor> one = {t.to(at::kCPU).contiguous()};
  together([&] { wires_->group->broadcast(one)->wait(); });
  if (!one[0].is_same(t)) t.copy_(one[0]);
}

void Ranks::hand_over(at::Tensor t) {
  at::Tensor whole = t.to(at::kCPU, at::kDouble).contiguous();
  std::vector<at::Tensor> one = {whole};
  if (t.numel() > 0)
    together([&] {
      if (wires_->gpus)
        wires_->gpus->reduce(whole);
      else
        wires_->group->reduce(one)->wait();
    });
  if (!conducts())
    t.zero_();
  else if (!whole.is_same(t))
    t.copy_(whole);
}

void Ranks::give(Order order) {
  wires_->store->set(fmt::format("order/{}", next_order_++), bytes(std::to_string(static_cast<int>(order))));
}

Ranks::Order Ranks::look() {
  const std::string key = fmt::format("order/{}", next_order_);
  if (!wires_->store->check({key})) return Order::none;
  ++next_order_;
  const std::vector<uint8_t> order = wires_->store->get(key);
  return static_cast<Order>(std::stoi(std::string(order.begin(), order.end())));
}

void Ranks::ready() { wires_->store->add(fmt::format("ready/{}", ++stages_), 1); }
bool Ranks::all_ready() { return wires_->store->add(fmt::format("ready/{}", stages_), 0) >= place_.world; }
void Ranks::ask_to_stop() {
  if (!std::exchange(asked_, true)) wires_->store->add("stop", 1);
}
bool Ranks::asked_to_stop() { return wires_->store->add("stop", 0) > 0; }

void Ranks::leave() {
  if (wires_->over.exchange(true)) return;
  try {
    wires_->store->add(fmt::format("left/{}", place_.rank), 1);
  } catch (const std::exception&) {  // who listened has gone already
  }
}

}  // namespace hesper

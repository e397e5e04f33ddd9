#pragma once
// The processes of one run, by PyTorch's c10d: NCCL carries the sums where every rank has a GPU of its own, Gloo
// elsewhere. torchrun's environment says who is who:
//   RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT    of rank 0 .. WORLD_SIZE - 1; where rank 0 (or torchrun itself)
//   listens
// Rank 0 conducts: it gives orders one after another (a snapshot, the sums of a stage, stop, finish), which the others
// look for between two windows. Every rank shows that it lives once a second; one that has not for 20 s is told by its
// number.
#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace hesper {

struct RankPlace {
  int rank = 0, world = 1;
  std::string address;
  int port = 0;
  bool agent_listens = false;  // torchrun's own store is at that address
  std::string prefix;          // of the keys in it
};
/// nullopt where WORLD_SIZE is 1 or is not set; throws std::invalid_argument where the rest is missing or wrong.
std::optional<RankPlace> rank_place();

class Ranks {
 public:
  enum class Order { none, snapshot, gather, stop, finish };
  using OnDeath = std::function<void(const std::string& what)>;

  /// device: of this rank's passes. Waits until all have come, 5 minutes at most. on_death: called once on a thread of
  /// its own where a rank has died, with one line that names it; not expected to come back. Throws std::runtime_error.
  Ranks(const RankPlace& place, at::Device device, OnDeath on_death);
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  int rank() const { return place_.rank; }
  int world() const { return place_.world; }
  bool conducts() const { return place_.rank == 0; }
  bool by_nccl() const;
  int64_t on_this_device() const;  // ranks that pass over this one's, it included

  /// The least of all ranks' numbers.
  int64_t least(int64_t number);

  /// Rank 0's text, for all; who comes before it waits.
  std::string share(const std::string& text);
  /// Rank 0's numbers, for all, into a tensor of their shape and type.
  void share(at::Tensor t);
  /// Moves what all have added up to rank 0, in fp64: there t becomes the sum over the ranks, elsewhere zero.
  void hand_over(at::Tensor t);

  void give(Order order);  // rank 0
  Order look();            // others: the next order, or none
  void ready();            // all: no more steps of this stage
  bool all_ready();
  void ask_to_stop();
  bool asked_to_stop();
  /// After the last order: this rank may end, and watches no more. Who ends without it has died.
  void leave();

 private:
  struct Wires;
  template <class F>
  void together(F f);

  RankPlace place_;
  std::unique_ptr<Wires> wires_;
  int64_t next_order_ = 0, shared_ = 0, compared_ = 0, stages_ = 0;
  bool asked_ = false;
};

}  // namespace hesper

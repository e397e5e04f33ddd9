// What ranks cost while nothing is exchanged.
#include "run/ranks.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <future>
#include <thread>

namespace hesper::test {
namespace {

int free_port() {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(s, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(s, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(s);
  return ntohs(address.sin_port);
}

// A beat a second and a look at the other's: far below a tenth of a processor for the watches of both, which would take
// more than one if they did not wait between.
TEST(Ranks, WatchesSleepBetweenBeats) {
  RankPlace place{.rank = 0, .world = 2, .address = "127.0.0.1", .port = free_port(), .prefix = "test"};
  const auto meet = [](const RankPlace& mine) {
    return std::make_unique<Ranks>(mine, at::kCPU, [](const std::string& what) { ADD_FAILURE() << what; });
  };
  auto other = std::async(std::launch::async, [&, mine = place]() mutable {
    mine.rank = 1;
    return meet(mine);
  });
  const std::unique_ptr<Ranks> first = meet(place), second = other.get();
  const std::clock_t begin = std::clock();  // of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 0.15);
  EXPECT_FALSE(first->by_nccl());
  second->leave();
  first->leave();
}

}  // namespace
}  // namespace hesper::test

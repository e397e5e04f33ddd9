#pragma once
// A small HTTP server on 127.0.0.1 whose answers a test makes up.
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace hesper::test {

struct ServerRequest {
  std::string method, path;                    // the path with its query, as it was sent
  std::map<std::string, std::string> headers;  // names in lower case
  std::string header(const std::string& name) const;
};

struct ServerAnswer {
  int status = 200;
  std::map<std::string, std::string> headers = {};  // Content-Length is added
  std::string body = {};
  std::optional<size_t> break_after = {};  // bytes of the body, then the connection ends
  bool silent = false;                     // no answer at all until the server goes
};

class TestServer {
 public:
  using Handler = std::function<ServerAnswer(const ServerRequest&)>;  // one call at a time

  explicit TestServer(Handler handler);
  ~TestServer();
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  std::string url(const std::string& host = "127.0.0.1") const;  // "http://127.0.0.1:PORT"
  std::vector<ServerRequest> requests() const;
  /// How many had this method and a path that holds `part`.
  int64_t count(const std::string& method, const std::string& part) const;

 private:
  void accept_all();
  void serve(int connection);
  bool answer(int connection, const ServerRequest& request);

  Handler handler_;
  int listener_ = -1, port_ = 0;
  mutable std::mutex mutex_;
  bool stopping_ = false;
  std::vector<ServerRequest> requests_;
  std::list<int> connections_;
  std::vector<std::thread> workers_;
  std::thread acceptor_;
};

}  // namespace hesper::test

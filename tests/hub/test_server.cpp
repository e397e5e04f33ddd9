#include "test_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace hesper::test {
namespace {

// The head of one request; false at the end of the connection.
bool read_head(int connection, std::string& buffer, std::string& head) {
  size_t end = 0;
  while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
    char part[4096];
    const ssize_t count = ::recv(connection, part, sizeof part, 0);
    if (count <= 0) return false;
    buffer.append(part, static_cast<size_t>(count));
  }
  head = buffer.substr(0, end + 2);
  buffer.erase(0, end + 4);
  return true;
}

ServerRequest parse_head(const std::string& head) {
  ServerRequest request;
  size_t at = head.find("\r\n");
  const std::string line = head.substr(0, at);
  request.method = line.substr(0, line.find(' '));
  request.path = line.substr(request.method.size() + 1, line.rfind(' ') - request.method.size() - 1);
  for (at += 2; at < head.size();) {
    const size_t end = head.find("\r\n", at), colon = head.find(": ", at);
    std::string name = head.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = head.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  return request;
}

bool send_all(int connection, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

std::string ServerRequest::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

TestServer::TestServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener_, plain, size) != 0 || ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, plain, &size) != 0) {
    throw std::runtime_error("the test server cannot listen on 127.0.0.1");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_all(); });
}

TestServer::~TestServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    for (const int connection : connections_) ::shutdown(connection, SHUT_RDWR);
  }
  acceptor_.join();
  for (std::thread& worker : workers_) worker.join();
  ::close(listener_);
}

std::string TestServer::url(const std::string& host) const { return fmt::format("http://{}:{}", host, port_); }

std::vector<ServerRequest> TestServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

int64_t TestServer::count(const std::string& method, const std::string& part) const {
  const std::vector<ServerRequest> all = requests();
  return std::count_if(all.begin(), all.end(), [&](const ServerRequest& request) {
    return request.method == method && request.path.find(part) != std::string::npos;
  });
}

void TestServer::accept_all() {
  while (true) {
    const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const std::lock_guard lock(mutex_);
    if (connection < 0 || stopping_) {
      if (connection >= 0) ::close(connection);
      return;
    }
    connections_.push_back(connection);
    workers_.emplace_back([this, connection] { serve(connection); });
  }
}

void TestServer::serve(int connection) {
  std::string buffer, head;
  while (read_head(connection, buffer, head) && answer(connection, parse_head(head))) {
  }
  const std::lock_guard lock(mutex_);
  connections_.remove(connection);
  ::close(connection);
}

bool TestServer::answer(int connection, const ServerRequest& request) {
  ServerAnswer answer;
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    answer = handler_(request);
  }
  if (answer.silent) {
    char byte = 0;
    while (::recv(connection, &byte, 1, 0) > 0) {
    }
    return false;
  }
  std::string head = fmt::format("HTTP/1.1 {} Test\r\n", answer.status);
  answer.headers.try_emplace("Content-Length", std::to_string(answer.body.size()));
  for (const auto& [name, value] : answer.headers) head += fmt::format("{}: {}\r\n", name, value);
  std::string body = request.method == "HEAD" ? "" : answer.body;
  if (answer.break_after) body.resize(std::min(body.size(), *answer.break_after));
  return send_all(connection, head + "\r\n" + body) && !answer.break_after;
}

}  // namespace hesper::test

#pragma once
#include <filesystem>
#include <string>

namespace hesper {

/// Where the hub is, and what it is asked with.
struct HubSettings {
  std::string endpoint = "https://huggingface.co";  // without a '/' at its end
  std::filesystem::path cache;                      // holds models--ORG--NAME
  std::string token;                                // "" where there is none
  std::string token_source;                         // "HF_TOKEN" or the file, for messages
  bool offline = false;
  int timeout = 10;        // seconds without a byte
  double retry_pause = 1;  // seconds before the second attempt; doubles with each
  int attempts = 5;        // in a row that bring nothing
};

/// From the variables that huggingface_hub knows: HF_ENDPOINT; HF_HUB_CACHE, else HF_HOME/hub, else
/// XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub; HF_TOKEN, else the file HF_TOKEN_PATH or
/// HF_HOME/token; HF_HUB_OFFLINE; HF_HUB_DOWNLOAD_TIMEOUT. Throws std::invalid_argument naming the variable that makes
/// no sense.
HubSettings hub_settings_from_environment();

}  // namespace hesper

// Threads that take work as there is room for it: 40 pieces of 30 MB, under a limit of 200 MB.
//
//     g++ -std=c++17 worker_pool.cpp $(pkg-config --cflags --libs highwater) -pthread && ./a.out

#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "highwater.hpp"

using namespace std::chrono_literals;

constexpr int PIECES = 40;
constexpr size_t PIECE = size_t{30} << 20;

int main()
try {
    hw_limits limits = HW_LIMITS_INIT;
    limits.max_memory_bytes = UINT64_C(200) << 20;
    // Or glibc keeps what the pieces have freed, and the gate is shut by memory that nobody uses.
    hw_settings settings = HW_SETTINGS_INIT;
    settings.return_freed_memory = 1;
    highwater::Monitor monitor(limits, settings);
    monitor.start(1s);
    std::printf("%s\n", monitor.verdict().c_str());

    std::atomic<int> next{0}, done{0}, running{0}, most{0};
    const auto take_work = [&] {
        hw_work work = HW_WORK_INIT;
        work.memory_bytes = PIECE;
        work.label = "piece";
        while (next++ < PIECES) {
            auto permit = monitor.admit(work, 60s);
            if (!permit) {
                std::fprintf(stderr, "%s\n", hw_last_error());
                continue;
            }
            const int now = ++running;
            for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
            }
            {
                const std::vector<char> touched(PIECE, 1);
                std::this_thread::sleep_for(20ms);
            }
            --running;
            ++done;
            permit.finish();
        }
    };
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 16; thread++)
        threads.emplace_back(take_work);
    for (auto &thread : threads)
        thread.join();
    std::printf("%d of %d done, at most %d at once\n", done.load(), PIECES, most.load());
    return done == PIECES ? 0 : 1;
} catch (const highwater::Error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}

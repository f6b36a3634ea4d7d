controls();
leaderboard();
paintAll();
document.documentElement.dataset.ready = "yes";

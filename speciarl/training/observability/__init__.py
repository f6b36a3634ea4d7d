"""What a run tells of itself: metrics, stored rollouts, pages of samples."""

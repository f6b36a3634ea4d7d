"""The miniature world of emoji: concepts, drawings and the data set made of them."""

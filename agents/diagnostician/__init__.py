"""The diagnostician finds what goes wrong in a training, proposes what to change, and says whether it helped."""

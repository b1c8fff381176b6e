"""Methods at work in other people's projects: their modules, their loops, their Trainers."""

"""A module that may not be imported into a zygote: it leaves a thread running."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()

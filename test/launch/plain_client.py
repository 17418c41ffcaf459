"""A lab's own node: plain rclpy, nothing of vla_ros, a default environment. Watches a running cell and stops its arm.

Writes what it found as one JSON object on standard output.
"""

import json
import os
import sys
import time

os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import MultiDOFJointTrajectory

PATIENCE_S = 45.0
CAMERAS = ("base", "wrist")


def main(has_to_stop):
    rclpy.init()
    node = rclpy.create_node("plain_client")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    found = {"given_up_on": "", "counts": {}}
    newest = {}
    counts = found["counts"]

    def hear(kind, topic, qos):
        counts[topic] = 0

        def on_message(message):
            counts[topic] += 1
            newest[topic] = message

        node.create_subscription(kind, topic, on_message, qos)

    commands = []

    def on_command(message):
        stamp = message.header.stamp
        commands.append((stamp.sec * 1_000_000_000 + stamp.nanosec, list(message.position)))

    node.create_subscription(JointState, "joint_command", on_command, 1000)
    hear(JointState, "joint_states", qos_profile_sensor_data)
    hear(MultiDOFJointTrajectory, "policies/scripted_visual/action_chunk", 10)
    for camera in CAMERAS:
        hear(Image, f"camera/{camera}/image", qos_profile_sensor_data)
        hear(CameraInfo, f"camera/{camera}/camera_info", qos_profile_sensor_data)

    def wait(condition, what):
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline_s:
                found["given_up_on"] = what
                raise TimeoutError(what)
            executor.spin_once(timeout_sec=0.05)

    def moved(since):
        stretch = [position for _, position in commands[since:]]
        return max(max(column) - min(column) for column in zip(*stretch, strict=True)) if stretch else 0.0

    def rest_s():
        """For how long the newest commands have been the same."""
        last_ns, last = commands[-1]
        for time_ns, position in reversed(commands):
            if max(abs(a - b) for a, b in zip(position, last, strict=True)) > 1e-6:
                return 1e-9 * (last_ns - time_ns)
        return 1e-9 * (last_ns - commands[0][0])

    try:
        # Five of each, so that discovery is over; the arm moves meanwhile.
        wait(lambda: all(count >= 5 for count in counts.values()), "five messages of each topic")
        wait(lambda: moved(0) > 0.02, "the arm to move")
        found["moved_rad"] = moved(0)
        found["topics"] = dict(node.get_topic_names_and_types())
        found["services"] = dict(node.get_service_names_and_types())
        found["nodes"] = sorted(name for name in node.get_node_names() if name != "plain_client")
        found["hear_ground_truth"] = [
            info.node_name for info in node.get_subscriptions_info_by_topic("/sim/ground_truth")
        ]
        for camera in CAMERAS:
            image, info = newest[f"camera/{camera}/image"], newest[f"camera/{camera}/camera_info"]
            found[f"{camera}_image"] = [image.encoding, image.width, image.height, len(image.data)]
            found[f"{camera}_info"] = [info.width, info.height]
        found["joints"] = list(newest["joint_states"].name)
        if has_to_stop:
            stop = node.create_client(Trigger, "safety/stop")
            wait(stop.service_is_ready, "the service safety/stop")
            future = stop.call_async(Trigger.Request())
            wait(future.done, "an answer of safety/stop")
            found["stop"] = [future.result().success, future.result().message]
            wait(lambda: rest_s() > 0.5, "the arm to come to rest")
            before, chunks = len(commands), counts["policies/scripted_visual/action_chunk"]
            wait(lambda: len(commands) > before + 250, "a second of commands after the stop")
            found["moved_after_rest_rad"] = moved(before)
            wait(lambda: counts["policies/scripted_visual/action_chunk"] > chunks, "chunks of a policy that goes on")
        found["commands"] = commands
    except TimeoutError:
        pass
    print(json.dumps(found))
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(has_to_stop="--stop" in sys.argv)

/* SPDX-License-Identifier: Apache-2.0 */

/* The methods of io.durabled.Manager, and the control socket. */

#include "daemon/host/interfaces.h"
#include "daemon/host/supervisor-private.h"

#include <errno.h>
#include <stdio.h>

#define OUT_OF_MEMORY "io.durabled.Manager.OutOfMemory"

static void status_ready(json_t *status, void *data)
{
        ControlCall *call = data;

        if (status)
                control_reply(call, status);
        else
                control_reply_error(call, OUT_OF_MEMORY, NULL);
}

static void manager_status(ControlCall *call, json_t *parameters, void *data)
{
        supervisor_query(data, status_ready, call);
}

static void manager_reload(ControlCall *call, json_t *parameters, void *data)
{
        supervisor_reload(data, call);
}

static void manager_stop(ControlCall *call, json_t *parameters, void *data)
{
        control_reply(call, NULL);
        supervisor_stop(data);
}

static const ControlMethod manager_methods[] = {
        { "Status", manager_status },
        { "Reload", manager_reload },
        { "Stop", manager_stop },
};

int manager_open(Supervisor *supervisor)
{
        /* Kept by the control socket. */
        static ControlInterface interfaces[2];
        _cleanup_(free_p) char *path = path_join(supervisor->runtime, "control");
        ControlOptions options = {
                .ring = supervisor->ring,
                .path = path,
                .interfaces = interfaces,
                .n_interfaces = ELEMENTSOF(interfaces),
                .data = supervisor,
        };

        interfaces[0] = (ControlInterface){ "io.durabled.Manager", interface_io_durabled_Manager,
                manager_methods, ELEMENTSOF(manager_methods) };
        interfaces[1] = objects_interface;
        return path ? control_open(&options, &supervisor->control) : -ENOMEM;
}
